//! Random and mutated files: nothing may panic, and nothing may be allocated that the file does not justify.
#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Gguf, Kv};
use ndarray::Array2;
use proptest::prelude::*;
use safetensors::SafeTensors;
use sparq_model::open_checkpoint;
use sparq_tensor::{TensorData, write_safetensors_file};

/// Remembers the largest single allocation of the process.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only a counter is kept.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// More than any honest reading of the small files below takes, and far less than a believed lie.
const ENOUGH: usize = 32 << 20;

/// Opens the bytes under the given name and uses everything a checkpoint offers.
fn exercise(name: &str, bytes: &[u8]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let opened = open_checkpoint(&path);
    if let Ok(checkpoint) = &opened {
        for tensor in checkpoint.tensors() {
            assert_eq!(checkpoint.read_bytes(&tensor.name).unwrap().len() as u64, tensor.bytes);
            let _ = checkpoint.read(&tensor.name).map(|values| assert_eq!(values.shape(), tensor.shape));
            let _ = checkpoint.read_matrix(&tensor.name);
            let _ = checkpoint.read_vector(&tensor.name);
        }
        let _ = checkpoint.config();
        let _ = checkpoint.tokenizer_json();
        let _ = checkpoint.tokenizer_config();
        let _ = checkpoint.side_files();
        checkpoint.content_hash().unwrap();
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < ENOUGH, "an allocation of {largest} bytes for a file of {}", bytes.len());
    opened.is_ok()
}

fn valid_safetensors() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let (a, b) = (Array2::<f32>::ones((3, 5)).into_dyn(), Array2::<i8>::ones((2, 2)).into_dyn());
    let tensors =
        [("a", TensorData::F32(a.view())), ("half", TensorData::AsF16(a.view())), ("b", TensorData::I8(b.view()))];
    write_safetensors_file(&path, &tensors).unwrap();
    std::fs::read(path).unwrap()
}

fn valid_gguf() -> Vec<u8> {
    let mut gguf = Gguf::tiny_with_tokenizer("llama", "smollm");
    gguf.set(
        "x.nested",
        Kv::Raw(
            9,
            [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &4u32.to_le_bytes(), &1u64.to_le_bytes(), &[1, 0, 0, 0]]
                .concat(),
        ),
    );
    gguf.to_bytes()
}

/// What a mutation does to a file: overwrite some bytes, near the front where the headers are, and perhaps cut the end.
#[derive(Debug, Clone)]
struct Mutation {
    bytes: Vec<(usize, u8)>,
    words: Vec<(usize, u64)>,
    cut: Option<usize>,
}

fn mutation(header: usize) -> impl Strategy<Value = Mutation> {
    let word = prop_oneof![
        any::<u64>(),
        0u64..64,
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| (1u64 << bit).wrapping_sub(1)),
    ];
    (
        prop::collection::vec((0..header, any::<u8>()), 0..6),
        prop::collection::vec((0..header, word), 0..2),
        prop::option::of(0usize..header * 2),
    )
        .prop_map(|(bytes, words, cut)| Mutation { bytes, words, cut })
}

impl Mutation {
    fn apply(&self, mut file: Vec<u8>) -> Vec<u8> {
        for &(at, byte) in &self.bytes {
            if let Some(slot) = file.get_mut(at) {
                *slot = byte;
            }
        }
        for &(at, word) in &self.words {
            if let Some(slot) = file.get_mut(at..at + 8) {
                slot.copy_from_slice(&word.to_le_bytes());
            }
        }
        file.truncate(self.cut.unwrap_or(file.len()));
        file
    }
}

#[test]
fn the_unmutated_files_are_good() {
    assert!(exercise("x.safetensors", &valid_safetensors()));
    assert!(exercise("x.gguf", &valid_gguf()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise("x.safetensors", &bytes);
        exercise("x.gguf", &bytes);
    }

    #[test]
    fn random_bytes_behind_a_good_start(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        tensors in 0u64..4,
        entries in 0u64..4,
    ) {
        let mut gguf = b"GGUF\x03\0\0\0".to_vec();
        gguf.extend(tensors.to_le_bytes());
        gguf.extend(entries.to_le_bytes());
        gguf.extend(&bytes);
        exercise("x.gguf", &gguf);
    }

    /// Mutated headers; whatever the format's own implementation refuses must be refused here.
    #[test]
    fn mutated_safetensors(mutation in mutation(260)) {
        let bytes = mutation.apply(valid_safetensors());
        let accepted = exercise("x.safetensors", &bytes);
        if accepted {
            let theirs = SafeTensors::deserialize(&bytes);
            prop_assert!(theirs.is_ok(), "{:?}", theirs.err());
        }
    }

    #[test]
    fn mutated_gguf(mutation in mutation(1900)) {
        exercise("x.gguf", &mutation.apply(valid_gguf()));
    }

    /// Headers that are JSON of the right kind with arbitrary numbers.
    #[test]
    fn plausible_safetensors_headers(
        tensors in prop::collection::vec((prop::collection::vec(any::<u64>(), 0..3), any::<u64>(), any::<u64>(), "F32|BF16|I64|F8_E4M3|X"), 0..4),
        data in 0usize..64,
    ) {
        let entries: Vec<String> = tensors.iter().enumerate().map(|(i, (shape, begin, end, dtype))| {
            format!("\"t{}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{},{}]}}", i % 3, begin % 64, end % 128)
        }).collect();
        let header = format!("{{{}}}", entries.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        exercise("x.safetensors", &bytes);
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let values = ndarray::Array2::<f32>::ones((64, 1024)).into_dyn();
    sparq_tensor::write_safetensors_file(&path, &[("w", sparq_tensor::TensorData::F32(values.view()))]).unwrap();
    let checkpoint = open_checkpoint(&path).unwrap();
    assert!(checkpoint.read("w").is_ok());
    std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    for error in [checkpoint.read("w").unwrap_err(), checkpoint.read_bytes("w").unwrap_err()] {
        assert!(matches!(error, sparq_tensor::Error::Shrunk { now: 100, .. }), "{error}");
        assert!(error.to_string().contains("model.safetensors"));
    }
    assert!(checkpoint.content_hash().is_err());
}
