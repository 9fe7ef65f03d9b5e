//! Pages with blocks between marks.

use crate::Raw;
use crate::blocks::Block;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

const START: &str = "<!-- table ";
const END: &str = "<!-- end -->";

/// README and docs, and what their blocks are to say.
#[derive(Debug)]
pub struct Pages {
    raw: Raw,
    blocks: BTreeMap<String, Block>,
    paths: Vec<PathBuf>,
}

/// A page as it is and as it should be.
struct Page {
    path: PathBuf,
    before: String,
    after: String,
    stale: Vec<Stale>,
}

/// A block that does not say what the raw results say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The page.
    pub page: PathBuf,
    /// The block's name.
    pub block: String,
    /// The first line that differs, as it should be.
    pub expected: String,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} should say {}", self.page.display(), self.block, self.expected)
    }
}

impl Pages {
    /// Of the project at `root`.
    ///
    /// # Errors
    /// If a file cannot be read, or a declaration is none.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("docs/results/tables.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let blocks = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let mut paths = vec![root.join("README.md")];
        for entry in std::fs::read_dir(root.join("docs"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(Self { raw: Raw::open(root)?, blocks, paths })
    }

    /// Writes every block, and tells which pages changed.
    ///
    /// # Errors
    /// As [`stale`](Self::stale).
    pub fn write(&self) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for page in self.rendered()? {
            if page.before != page.after {
                std::fs::write(&page.path, page.after).with_context(|| page.path.display().to_string())?;
                changed.push(page.path);
            }
        }
        Ok(changed)
    }

    /// The blocks that do not say what raw results say.
    ///
    /// # Errors
    /// If raw results lack a figure, a block is not declared or is on no page, or a mark has no end.
    pub fn stale(&self) -> Result<Vec<Stale>> {
        Ok(self.rendered()?.into_iter().flat_map(|page| page.stale).collect())
    }

    fn rendered(&self) -> Result<Vec<Page>> {
        let mut used = BTreeSet::new();
        let mut rendered = Vec::new();
        for path in &self.paths {
            let before = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let (after, stale) = self.page(path, &before, &mut used).with_context(|| path.display().to_string())?;
            rendered.push(Page { path: path.clone(), before, after, stale });
        }
        let unused: Vec<&String> = self.blocks.keys().filter(|name| !used.contains(*name)).collect();
        ensure!(unused.is_empty(), "declared, but on no page: {unused:?}");
        Ok(rendered)
    }

    fn page(&self, page: &Path, text: &str, used: &mut BTreeSet<String>) -> Result<(String, Vec<Stale>)> {
        let (mut out, mut stale) = (String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            out.push_str(line);
            out.push('\n');
            let Some(name) = line.strip_prefix(START).and_then(|rest| rest.strip_suffix(" -->")) else {
                continue;
            };
            let block = self.blocks.get(name).with_context(|| format!("{name:?} is not declared"))?;
            let expected = block.render(&self.raw).with_context(|| name.to_owned())?;
            let mut found = Vec::new();
            loop {
                match lines.next() {
                    Some(END) => break,
                    Some(line) if !line.starts_with(START) => found.push(line),
                    _ => bail!("{name:?} has no end"),
                }
            }
            let differs = (0..expected.len().max(found.len()))
                .find(|&at| expected.get(at).map(String::as_str) != found.get(at).copied());
            if let Some(at) = differs {
                let expected = expected.get(at).cloned().unwrap_or_else(|| "nothing more".to_owned());
                stale.push(Stale { page: page.to_owned(), block: name.to_owned(), expected });
            }
            for line in expected {
                out.push_str(&line);
                out.push('\n');
            }
            out.push_str(END);
            out.push('\n');
            used.insert(name.to_owned());
        }
        Ok((out, stale))
    }
}
