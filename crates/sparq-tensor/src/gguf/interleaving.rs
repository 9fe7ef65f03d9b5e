//! The row order of query and key projections in GGUF files of the llama architecture.

/// How rows of a query or key projection are stored.
///
/// Hugging Face rotates element `i` of a head together with element `i + half`; llama.cpp, for the llama architecture
/// only, with its neighbour. Its converter therefore stores the rows of each head alternating between the two halves.
/// `head_dimension` is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadInterleaving {
    pub(crate) head_dimension: usize,
}

impl HeadInterleaving {
    /// The row on disk that holds Hugging Face's row `row`.
    pub(crate) fn source_row(self, row: usize) -> usize {
        let half = self.head_dimension / 2;
        let (head, within) = (row / self.head_dimension, row % self.head_dimension);
        let (upper, index) = (within / half, within % half);
        head * self.head_dimension + 2 * index + upper
    }

    /// Hugging Face's row for each row on disk.
    pub(crate) fn stored_order(self, rows: usize) -> Vec<usize> {
        let mut order = vec![0; rows];
        for row in 0..rows {
            order[self.source_row(row)] = row;
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_undoes_the_converter() {
        // The converter, literally: per head view rows as (2, half), swap to (half, 2).
        let (heads, half) = (3, 4);
        let mut stored = Vec::new();
        for head in 0..heads {
            for index in 0..half {
                for upper in 0..2 {
                    stored.push(head * 2 * half + upper * half + index);
                }
            }
        }
        let interleaving = HeadInterleaving { head_dimension: 2 * half };
        let restored: Vec<usize> = (0..stored.len()).map(|row| stored[interleaving.source_row(row)]).collect();
        assert_eq!(restored, (0..stored.len()).collect::<Vec<_>>());
        assert_eq!(interleaving.stored_order(stored.len()), stored);
    }
}
