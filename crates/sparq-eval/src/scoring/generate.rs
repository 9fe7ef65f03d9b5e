//! Greedy writing, many prompts at once.

use super::common_prefix;
use super::head::most_likely;
use crate::{Error, LanguageModel, Result};
use ndarray::{Array2, Axis};

/// Most prompts that are continued together: beyond, caches grow and speed does not.
const MOST_TOGETHER: usize = 64;

/// When writing ends.
#[derive(Debug)]
pub(crate) struct Limits<'a> {
    /// Most tokens written.
    pub(crate) max_new_tokens: usize,
    /// Strings that end a text and are not part of it.
    pub(crate) stop: &'a [String],
    /// About how many tokens of prompts run together.
    pub(crate) batch_tokens: usize,
}

/// Tokens of a prompt, at least one. White space at its end is kept: it is part of the template.
pub(crate) fn encode_prompt<M: LanguageModel>(model: &M, prompt: &str, special_tokens: bool) -> Result<Vec<u32>> {
    let mut tokens = model.encode(prompt, special_tokens)?;
    if tokens.is_empty() {
        tokens.push(model.prefix_token()?.ok_or(Error::NoPrefixToken)?);
    }
    Ok(tokens)
}

/// Continues each prompt with the most likely tokens until a token or a string ends it; the texts written.
pub(crate) fn greedy<M: LanguageModel>(
    model: &M,
    prompts: &[Vec<u32>],
    limits: &Limits<'_>,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<String>> {
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let ends = model.end_tokens()?;
    // The beginning that all prompts share (worked examples, say) is run once; the last token must stay outside.
    let shortest = prompts.iter().map(|prompt| prompt.len() - 1).min().unwrap_or(0);
    let shared = common_prefix(prompts.iter().map(Vec::as_slice)).min(shortest);
    let mut root = model.new_cache();
    if shared > 0 {
        model.extend(std::slice::from_mut(&mut root), &[&prompts[0][..shared]])?;
    }
    let mut texts = Vec::with_capacity(prompts.len());
    while texts.len() < prompts.len() {
        let rest = &prompts[texts.len()..];
        let mut tokens = 0;
        let fitting = rest.iter().take(MOST_TOGETHER).take_while(|prompt| {
            tokens += prompt.len() - shared;
            tokens <= limits.batch_tokens
        });
        let batch = &rest[..fitting.count().max(1)];
        texts.extend(write(model, batch, shared, &root, &ends, limits)?);
        progress(texts.len(), prompts.len());
    }
    Ok(texts)
}

fn write<M: LanguageModel>(
    model: &M,
    prompts: &[Vec<u32>],
    shared: usize,
    root: &M::Cache,
    ends: &[u32],
    limits: &Limits<'_>,
) -> Result<Vec<String>> {
    let mut texts = vec![String::new(); prompts.len()];
    // Index and tokens written, cache, and tokens to be read next, of each text that is not finished.
    let mut active: Vec<(usize, Vec<u32>)> = (0..prompts.len()).map(|index| (index, Vec::new())).collect();
    let mut caches = vec![root.clone(); prompts.len()];
    let mut next: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt[shared..].to_vec()).collect();
    for _ in 0..limits.max_new_tokens {
        if active.is_empty() {
            break;
        }
        let batch: Vec<&[u32]> = next.iter().map(Vec::as_slice).collect();
        let hidden = model.extend(&mut caches, &batch)?;
        let tokens = most_likely(model, &last_rows(&hidden, &batch))?;
        let mut going = Vec::with_capacity(active.len());
        for ((index, written), token) in active.iter_mut().zip(&tokens) {
            let mut ended = ends.contains(token);
            if !ended {
                written.push(*token);
                let text = model.decode(written)?;
                let stop = limits
                    .stop
                    .iter()
                    .filter(|stop| !stop.is_empty())
                    .filter_map(|stop| text.find(stop.as_str()))
                    .min();
                ended = stop.is_some();
                texts[*index] = stop.map_or_else(|| text.clone(), |at| text[..at].to_owned());
            }
            going.push(!ended);
        }
        next = tokens.into_iter().map(|token| vec![token]).collect();
        keep(&mut active, &going);
        keep(&mut caches, &going);
        keep(&mut next, &going);
    }
    Ok(texts)
}

/// The last row of each sequence of `hidden`, `[sum of lengths, hidden]`.
fn last_rows(hidden: &Array2<f32>, batch: &[&[u32]]) -> Array2<f32> {
    let ends = batch.iter().scan(0, |end, tokens| {
        *end += tokens.len();
        Some(*end)
    });
    hidden.select(Axis(0), &ends.map(|end: usize| end.saturating_sub(1)).collect::<Vec<_>>())
}

fn keep<T>(values: &mut Vec<T>, which: &[bool]) {
    let mut which = which.iter();
    values.retain(|_| which.next().copied().unwrap_or(false));
}
