//! Greedy generation for many prompts at once.

use super::common_prefix;
use super::head::most_likely;
use crate::dealt::dealt;
use crate::{Error, LanguageModel, Result, TaskOptions};
use ndarray::{Array2, Axis};
use sparq_core::{Ranks, message};

/// Most prompts that are continued together: beyond, caches grow and speed does not.
const MOST_TOGETHER: usize = 64;
/// Prompts of a group. A finished text makes room for the next prompt of its group only.
const GROUP: usize = 256;

/// When generation ends.
#[derive(Debug)]
pub(crate) struct Limits<'a> {
    /// Most tokens written.
    pub(crate) max_new_tokens: usize,
    /// Strings that end a text and are not part of it.
    pub(crate) stop: &'a [String],
    /// About how many tokens of prompts run together.
    pub(crate) batch_tokens: usize,
}

/// Continues each prompt greedily by up to `max_new_tokens` tokens; only the new text.
///
/// The prompts run together, as those of a generated task do.
///
/// # Errors
/// The model's; [`Error::NoPrefixToken`]; [`Error::NotFinite`].
///
/// # Examples
/// ```no_run
/// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
/// let texts = sparq_eval::continue_greedily(&model, &["Once upon a time", "The capital of France"], 24)?;
/// assert_eq!(texts.len(), 2);
/// # Ok::<(), sparq_eval::Error>(())
/// ```
pub fn continue_greedily<M: LanguageModel>(model: &M, prompts: &[&str], max_new_tokens: usize) -> Result<Vec<String>> {
    let prompts = prompts.iter().map(|prompt| encode_prompt(model, prompt, true)).collect::<Result<Vec<_>>>()?;
    let limits = Limits { max_new_tokens, stop: &[], batch_tokens: TaskOptions::default().batch_tokens };
    greedy(&Ranks::default(), model, &prompts, &limits, &|_, _| {})
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
///
/// Groups of prompts are written one after the other, and shared by processes.
pub(crate) fn greedy<M: LanguageModel>(
    ranks: &Ranks,
    model: &M,
    prompts: &[Vec<u32>],
    limits: &Limits<'_>,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<String>> {
    let groups: Vec<&[Vec<u32>]> = prompts.chunks(GROUP).collect();
    let mut before = 0;
    let messages = dealt(ranks, groups.len(), |index| {
        let of_group =
            |done: usize, _: usize| progress((before + done * ranks.size()).min(prompts.len()), prompts.len());
        let mut bytes = Vec::new();
        for text in write(model, groups[index], limits, &of_group)? {
            message::put_count(&mut bytes, text.len() as u64);
            bytes.extend(text.into_bytes());
        }
        before += groups[index].len() * ranks.size();
        Ok(bytes)
    })?;
    let messages = messages.concat();
    let mut rest = messages.as_slice();
    let mut of = |_: &Vec<u32>| {
        let length = message::take_count(&mut rest)? as usize;
        String::from_utf8(message::take_bytes(&mut rest, length)?.to_vec()).map_err(|_| message::garbled().into())
    };
    prompts.iter().map(&mut of).collect()
}

/// Writes one group.
fn write<M: LanguageModel>(
    model: &M,
    prompts: &[Vec<u32>],
    limits: &Limits<'_>,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<String>> {
    if prompts.is_empty() || limits.max_new_tokens == 0 {
        return Ok(vec![String::new(); prompts.len()]);
    }
    model.check_length(prompts.iter().map(Vec::len).max().unwrap_or(0))?;
    let ends = model.end_tokens()?;
    // The beginning that all prompts share (worked examples, say) is run once; the last token must stay outside.
    let shortest = prompts.iter().map(|prompt| prompt.len() - 1).min().unwrap_or(0);
    let shared = common_prefix(prompts.iter().map(Vec::as_slice)).min(shortest);
    let mut root = model.new_cache();
    if shared > 0 {
        model.extend(std::slice::from_mut(&mut root), &[&prompts[0][..shared]])?;
    }
    let mut writer = Writer {
        model,
        limits,
        ends,
        lengths: prompts.iter().map(Vec::len).collect(),
        texts: vec![String::new(); prompts.len()],
        active: Vec::new(),
        caches: Vec::new(),
        next: Vec::new(),
    };
    let mut waiting = prompts.iter().map(|prompt| &prompt[shared..]).enumerate().peekable();
    loop {
        // A finished text makes room for a new prompt, so that batches stay full.
        let mut tokens = 0;
        while writer.active.len() < MOST_TOGETHER
            && let Some((index, prompt)) =
                waiting.next_if(|(_, prompt)| tokens == 0 || tokens + prompt.len() <= limits.batch_tokens)
        {
            tokens += prompt.len();
            writer.active.push((index, Vec::new()));
            writer.caches.push(root.clone());
            writer.next.push(prompt.to_vec());
        }
        if writer.active.is_empty() {
            break;
        }
        if writer.step()? {
            progress(prompts.len() - waiting.len() - writer.active.len(), prompts.len());
        }
    }
    Ok(writer.texts)
}

/// Texts that are being written.
struct Writer<'a, M: LanguageModel> {
    model: &'a M,
    limits: &'a Limits<'a>,
    ends: Vec<u32>,
    /// Tokens of each prompt.
    lengths: Vec<usize>,
    texts: Vec<String>,
    /// Index and tokens written of each text that is not finished.
    active: Vec<(usize, Vec<u32>)>,
    /// The cache of each of them.
    caches: Vec<M::Cache>,
    /// The tokens each of them reads next.
    next: Vec<Vec<u32>>,
}

impl<M: LanguageModel> Writer<'_, M> {
    /// Adds one token to every text. Returns whether any has ended.
    fn step(&mut self) -> Result<bool> {
        let batch: Vec<&[u32]> = self.next.iter().map(Vec::as_slice).collect();
        let hidden = self.model.extend(&mut self.caches, &batch)?;
        let tokens = most_likely(self.model, &last_rows(&hidden, &batch))?;
        let mut going = Vec::with_capacity(self.active.len());
        for ((index, written), token) in self.active.iter_mut().zip(&tokens) {
            let mut ended = self.ends.contains(token);
            if !ended {
                written.push(*token);
                let text = self.model.decode(written)?;
                let stops = self.limits.stop.iter().filter(|stop| !stop.is_empty());
                let stop = stops.filter_map(|stop| text.find(stop.as_str())).min();
                let is_full = self.model.check_length(self.lengths[*index] + written.len() + 1).is_err();
                ended = stop.is_some() || written.len() == self.limits.max_new_tokens || is_full;
                self.texts[*index] = stop.map_or_else(|| text.clone(), |at| text[..at].to_owned());
            }
            going.push(!ended);
        }
        self.next = tokens.into_iter().map(|token| vec![token]).collect();
        keep(&mut self.active, &going);
        keep(&mut self.caches, &going);
        keep(&mut self.next, &going);
        Ok(going.contains(&false))
    }
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
