/// Indices of the points that no other point beats, both coordinates being better when larger: for example TCr and Sr.
///
/// A point is beaten by one that is at least as good in both and better in one. Equal points stay together. The result
/// is sorted by the first coordinate, then by index; points with a NaN are left out.
///
/// # Examples
/// ```
/// let points = [(0.75, 0.95), (0.8125, 0.7), (0.8125, 0.9), (0.875, 0.5), (0.7, 0.9)];
/// assert_eq!(sparq_metric::pareto_front(&points), [0, 2, 3]);
/// ```
pub fn pareto_front(points: &[(f64, f64)]) -> Vec<usize> {
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 >= b.0 && a.1 >= b.1 && (a.0 > b.0 || a.1 > b.1);
    let is_point = |index: &usize| !points[*index].0.is_nan() && !points[*index].1.is_nan();
    let mut front: Vec<usize> = (0..points.len())
        .filter(is_point)
        .filter(|index| !points.iter().any(|other| beats(*other, points[*index])))
        .collect();
    front.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0).then(a.cmp(b)));
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_points_stay_and_nan_goes() {
        assert_eq!(pareto_front(&[(1.0, 1.0), (1.0, 1.0), (f64::NAN, 2.0)]), [0, 1]);
        assert_eq!(pareto_front(&[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn every_other_point_is_beaten_by_one_of_the_front(points in prop::collection::vec((0_u8..6, 0_u8..6), 1..20)) {
            let points: Vec<(f64, f64)> = points.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
            let front = pareto_front(&points);
            prop_assert!(!front.is_empty());
            for (index, point) in points.iter().enumerate() {
                let beaten = front.iter().any(|f| points[*f].0 >= point.0 && points[*f].1 >= point.1 && points[*f] != *point);
                prop_assert_eq!(beaten, !front.contains(&index));
            }
        }
    }
}
