//! What a file is by its first bytes, whatever its name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The formats that weights are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    Gguf,
    Safetensors,
}

/// The container that a file begins like; none for everything else.
pub(crate) fn container(bytes: &[u8]) -> Option<Container> {
    if bytes.starts_with(b"GGUF") {
        return Some(Container::Gguf);
    }
    let length = u64::from_le_bytes(*bytes.first_chunk()?);
    let fits = length <= crate::limits::SAFETENSORS_HEADER_BYTES && bytes.get(8) == Some(&b'{');
    fits.then_some(Container::Safetensors)
}

/// The container that a file is by its first bytes, or else by its name.
pub(crate) fn container_of(path: &Path, bytes: &[u8]) -> Option<Container> {
    let by_name = || match path.extension()?.to_str()? {
        extension if extension.eq_ignore_ascii_case("safetensors") => Some(Container::Safetensors),
        extension if extension.eq_ignore_ascii_case("gguf") => Some(Container::Gguf),
        _ => None,
    };
    container(bytes).or_else(by_name)
}

/// As [`container_of`], for a file that is not open; none for what cannot be read.
pub(crate) fn container_at(path: &Path) -> Option<Container> {
    let mut first = Vec::new();
    if path.is_file() {
        File::open(path).ok()?.take(9).read_to_end(&mut first).ok()?;
    }
    container_of(path, &first)
}

/// What a file is that holds something else than weights or settings, and what to do about it; none for all that may be
/// what it is taken for.
pub(crate) fn stand_in(bytes: &[u8]) -> Option<&'static str> {
    const LFS: &str = "a git-lfs pointer, not the file itself: the download is incomplete; `git lfs pull` fetches it";
    const PAGE: &str = "a web page, not the file itself: the server answered with it; download the file again";
    const ERROR: &str = "a server's error message, not the file itself; download the file again";
    const ZIP: &str = "a zip archive, as PyTorch saves models; convert it to safetensors";
    const PICKLE: &str = "a Python pickle, as PyTorch saves models; convert it to safetensors";
    const STARTS: [(&[u8], &str); 12] = [
        (b"version https://git-lfs", LFS),
        (b"<!doctype", PAGE),
        (b"<html", PAGE),
        (b"<?xml", ERROR),
        (b"{\"error\"", ERROR),
        (b"Entry not found", ERROR),
        (b"PK\x03\x04", ZIP),
        (b"\x80\x02", PICKLE),
        (b"\x1f\x8b", "compressed by gzip; unpack it"),
        (b"\x89HDF", "an HDF5 file; convert it to safetensors"),
        (b"tjgg", "of a format that llama.cpp had before GGUF; convert the model anew"),
        (b"fmgg", "of a format that llama.cpp had before GGUF; convert the model anew"),
    ];
    if container(bytes).is_some() {
        return None;
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins = |start: &[u8]| text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    STARTS.iter().find(|(start, _)| begins(start)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        assert_eq!(container(b"GGUF\x03\0\0\0"), Some(Container::Gguf));
        assert_eq!(container(b"{\0\0\0\0\0\0\0{"), Some(Container::Safetensors));
        assert_eq!(container(b"\x02\0\0\0\0\0\0\0["), None);
        assert_eq!(container(b"{\"error\": \"no\"}"), None);
        assert_eq!(stand_in(b"\x80\x02\0\0\0\0\0\0{}"), None, "a header of 640 bytes");
        for (bytes, word) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0"[..], "git-lfs"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"\xef\xbb\xbf<HTML>", "web page"),
            (b"{\"error\":\"Repository not found\"}", "error message"),
            (b"PK\x03\x04\0\0", "PyTorch"),
            (b"\x80\x02}q\x01", "pickle"),
        ] {
            assert!(stand_in(bytes).is_some_and(|what| what.contains(word)), "{word}");
        }
        assert_eq!(stand_in(b""), None);
        assert_eq!(stand_in(b"{\"model_type\": \"llama\"}"), None);
    }
}
