use super::TextSettings;
use crate::{Error, Result};
use std::ops::Range;

/// A stretch of a text that a model sees at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Index of the first token the model sees.
    pub start: usize,
    /// Index after the last token.
    pub end: usize,
    /// Index of the first token whose prediction counts; larger than `start`.
    pub first_scored: usize,
}

impl Window {
    /// Number of tokens whose prediction counts.
    pub fn scored(&self) -> usize {
        self.end - self.first_scored
    }

    /// Positions within the window whose hidden states predict the scored tokens: each predicts the next.
    pub(super) fn predicting(&self) -> Range<usize> {
        self.first_scored - 1 - self.start..self.end - 1 - self.start
    }
}

/// Windows over `tokens` tokens.
pub(super) fn cut(tokens: usize, settings: &TextSettings) -> Result<Vec<Window>> {
    let length = settings.length;
    if length < 2 {
        return Err(Error::setting("length", format!("a window needs at least 2 tokens, got {length}")));
    }
    match settings.stride {
        None => whole(tokens, length),
        Some(stride) if stride == 0 || stride >= length => {
            let reason = format!("1 to {} for windows of {length} tokens, got {stride}", length - 1);
            Err(Error::setting("stride", reason))
        }
        Some(stride) => overlapping(tokens, length, stride),
    }
}

fn whole(tokens: usize, length: usize) -> Result<Vec<Window>> {
    if tokens < length {
        return Err(Error::TextTooShort { tokens, needed: length });
    }
    let starts = (0..tokens / length).map(|window| window * length);
    Ok(starts.map(|start| Window { start, end: start + length, first_scored: start + 1 }).collect())
}

fn overlapping(tokens: usize, length: usize, stride: usize) -> Result<Vec<Window>> {
    if tokens < 2 {
        return Err(Error::TextTooShort { tokens, needed: 2 });
    }
    let mut windows = Vec::new();
    let (mut start, mut first_scored) = (0, 1);
    loop {
        let end = tokens.min(start + length);
        windows.push(Window { start, end, first_scored });
        if end == tokens {
            return Ok(windows);
        }
        start += stride;
        first_scored = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(length: usize, stride: Option<usize>) -> TextSettings {
        TextSettings { length, stride, ..TextSettings::default() }
    }

    #[test]
    fn whole_windows_drop_the_rest() {
        let windows = cut(11, &settings(5, None)).unwrap();
        let window = |start, end, first_scored| Window { start, end, first_scored };
        assert_eq!(windows, [window(0, 5, 1), window(5, 10, 6)]);
        assert_eq!(windows[1].predicting(), 0..4);
        assert!(matches!(cut(4, &settings(5, None)), Err(Error::TextTooShort { tokens: 4, needed: 5 })));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for bad in [settings(1, None), settings(0, None), settings(4, Some(0)), settings(4, Some(4))] {
            assert!(matches!(cut(100, &bad), Err(Error::Setting { .. })));
        }
        assert!(matches!(cut(1, &settings(4, Some(2))), Err(Error::TextTooShort { .. })));
    }

    proptest! {
        #[test]
        fn overlapping_windows_score_every_token_once(tokens in 2_usize..300, length in 2_usize..40, stride in 1_usize..40) {
            prop_assume!(stride < length);
            let windows = cut(tokens, &settings(length, Some(stride))).unwrap();
            let mut next = 1;
            for window in &windows {
                prop_assert_eq!(window.first_scored, next);
                prop_assert!(window.first_scored > window.start && window.end > window.first_scored);
                prop_assert!(window.end - window.start <= length);
                // All windows but the first give at least length − stride tokens of context.
                prop_assert!(window.start == 0 || window.first_scored - window.start == length - stride);
                next = window.end;
            }
            prop_assert_eq!(next, tokens);
        }
    }
}
