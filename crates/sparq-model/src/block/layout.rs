use std::ops::Range;
use std::sync::Arc;

/// Where the sequences are in an array of concatenated tokens, and at which position each one starts.
///
/// Sequences may have any lengths, zero included; nothing is padded. Cloning is cheap.
///
/// # Examples
/// ```
/// let layout = sparq_model::BatchLayout::new(&[3, 2]);
/// assert_eq!((layout.tokens(), layout.sequences()), (5, 2));
/// assert_eq!(layout.rows(1), 3..5);
/// ```
#[derive(Debug, Clone)]
pub struct BatchLayout(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// First row of each sequence, then the number of rows.
    offsets: Vec<usize>,
    /// Position of each row in its sequence.
    positions: Vec<usize>,
}

impl BatchLayout {
    /// Sequences of these lengths, each starting at position 0.
    pub fn new(lengths: &[usize]) -> Self {
        Self::continuing(lengths.iter().map(|length| (0, *length)))
    }

    /// Which consecutive sequences of these lengths run together: at most so many tokens, or one longer sequence.
    ///
    /// ```
    /// assert_eq!(sparq_model::BatchLayout::cut(&[3, 3, 9, 1], 6), [0..2, 2..3, 3..4]);
    /// ```
    pub fn cut(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
        let (mut runs, mut start, mut tokens) = (Vec::new(), 0, 0);
        for (index, &length) in lengths.iter().enumerate() {
            if index > start && tokens + length > most {
                runs.push(start..index);
                (start, tokens) = (index, 0);
            }
            tokens += length;
        }
        if start < lengths.len() {
            runs.push(start..lengths.len());
        }
        runs
    }

    /// Sequences given as (tokens seen before, new tokens).
    pub(crate) fn continuing(sequences: impl Iterator<Item = (usize, usize)>) -> Self {
        let (mut offsets, mut positions) = (vec![0], Vec::new());
        for (start, length) in sequences {
            positions.extend(start..start + length);
            offsets.push(positions.len());
        }
        Self(Arc::new(Inner { offsets, positions }))
    }

    /// Number of tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.0.positions.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.0.offsets.len() - 1
    }

    /// Rows of one sequence in the concatenated array; empty beyond the last sequence.
    pub fn rows(&self, sequence: usize) -> Range<usize> {
        match self.0.offsets.get(sequence..sequence + 2) {
            Some([begin, end]) => *begin..*end,
            _ => 0..0,
        }
    }

    pub(crate) fn positions(&self) -> &[usize] {
        &self.0.positions
    }
}
