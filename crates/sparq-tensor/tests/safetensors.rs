//! Writing safetensors checkpoints and reading them back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use ndarray::{Array1, Array2, ArrayD, Axis, array};
use proptest::prelude::*;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use sparq_tensor::{
    Checkpoint, CheckpointWriter, DType, Error, Fault, SourceFormat, TensorData, TensorPart, TensorSpec, WriteOptions,
    read_safetensors_file, write_safetensors_file,
};

fn matrix(rows: usize, columns: usize, scale: f32) -> ArrayD<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((i * columns + j) as f32).sin() * scale).into_dyn()
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_float_type_round_trips_and_rounds_to_nearest_even() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let values = matrix(300, 301, 3.0); // more than one chunk
    let types = [DType::F32, DType::F16, DType::BF16];
    let plan = types.map(|dtype| TensorSpec::new(dtype.to_string(), [300, 301], dtype)).to_vec();
    let mut writer = CheckpointWriter::create(&path, plan, WriteOptions::default()).unwrap();
    for dtype in types {
        writer.write_f32(&dtype.to_string(), values.view()).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!((written.shards, written.bytes), (1, 300 * 301 * 8));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.format(), SourceFormat::Safetensors);
    assert_eq!(checkpoint.read("F32").unwrap(), values);
    assert_eq!(checkpoint.read("F16").unwrap(), values.mapv(|x| f16::from_f32(x).to_f32()));
    assert_eq!(checkpoint.read("BF16").unwrap(), values.mapv(|x| bf16::from_f32(x).to_f32()));
    assert!(matches!(checkpoint.config(), Err(Error::MissingFile { .. })));

    // The format's own implementation reads the same.
    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    for dtype in types {
        let name = dtype.to_string();
        assert_eq!(theirs.tensor(&name).unwrap().data(), &*checkpoint.read_bytes(&name).unwrap());
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn shards_are_filled_in_any_order_and_indexed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep").join("out");
    let plan: Vec<TensorSpec> = (0..7).map(|i| TensorSpec::new(format!("t{i}"), [4, 8], DType::F32)).collect();
    let options = WriteOptions { max_shard_bytes: 300, ..WriteOptions::default() };
    let mut writer = CheckpointWriter::create(&path, plan, options).unwrap();
    for i in [6, 0, 3, 1, 5, 2, 4] {
        writer.write_f32(&format!("t{i}"), matrix(4, 8, i as f32).view()).unwrap();
    }
    writer.write_side_file("config.json", b"{\"a\":1}").unwrap();
    assert_eq!(writer.finish().unwrap().shards, 4);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 7 * 128);
    assert_eq!(index["weight_map"]["t2"], "model-00002-of-00004.safetensors");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensors().len(), 7);
    for i in 0..7 {
        assert_eq!(checkpoint.read(&format!("t{i}")).unwrap(), matrix(4, 8, i as f32));
    }
    assert_eq!(entries(&directory.path().join("deep")), ["out"]);

    // Each way in which the set of files can be broken.
    let hidden = path.join("hidden");
    let shard = path.join("model-00003-of-00004.safetensors");
    fs::rename(&shard, &hidden).unwrap();
    assert!(matches!(Checkpoint::open(&path), Err(Error::MissingFile { file, .. }) if file == shard));
    fs::copy(path.join("model-00002-of-00004.safetensors"), &shard).unwrap();
    assert!(!Checkpoint::open(&path).unwrap().contains("t4"), "who needs it will say so");
    for bad in ["../x.safetensors", "/etc/passwd", "a/b", "..", ""] {
        let index = serde_json::json!({ "weight_map": { "t0": bad } });
        fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(matches!(error, Error::MalformedTensor { fault: Fault::ShardName { .. }, .. }), "{error}");
    }
    for bad in ["[]", "{", "{\"weight_map\": 1}", "{\"weight_map\": {\"a\": 1}}"] {
        fs::write(path.join("model.safetensors.index.json"), bad).unwrap();
        assert!(Checkpoint::open(&path).is_err(), "{bad}");
    }
}

#[test]
fn views_of_any_strides_are_written_in_logical_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let base = matrix(40, 60, 1.0);
    let mut flipped = base.view();
    flipped.invert_axis(Axis(1));
    let transposed = base.t();
    let plan = vec![TensorSpec::new("f", [40, 60], DType::F32), TensorSpec::new("t", [60, 40], DType::F32)];
    let mut writer = CheckpointWriter::create(&path, plan, WriteOptions::default()).unwrap();
    writer.write_f32("f", flipped.clone()).unwrap();
    writer.write_f32("t", transposed.clone()).unwrap();
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.read("f").unwrap(), flipped);
    assert_eq!(checkpoint.read("t").unwrap(), transposed);
}

#[test]
fn a_failed_or_dropped_writer_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let plan = || vec![TensorSpec::new("a", [2], DType::F16), TensorSpec::new("b", [2], DType::I8)];
    let create = || CheckpointWriter::create(&path, plan(), WriteOptions::default()).unwrap();
    let good = array![1.0f32, 2.0].into_dyn();

    let mut writer = create();
    assert_eq!(entries(directory.path()).len(), 1);
    writer.write_f32("a", good.view()).unwrap();
    assert!(matches!(writer.write_f32("a", good.view()), Err(Error::WrittenTwice { .. })));
    assert!(matches!(writer.write_f32("x", good.view()), Err(Error::NotPlanned { .. })));
    assert!(matches!(writer.write_f32("b", good.view()), Err(Error::InvalidPlan { .. })));
    assert!(matches!(writer.write_bytes("b", &[1]), Err(Error::SizeMismatch { planned: 2, found: 1, .. })));
    drop(writer);
    assert!(entries(directory.path()).is_empty());

    let mut writer = create();
    let wrong_shape = array![[1.0f32, 2.0]].into_dyn();
    assert!(matches!(writer.write_f32("a", wrong_shape.view()), Err(Error::ShapeMismatch { .. })));
    for value in [f32::NAN, f32::INFINITY, 70000.0] {
        let error = writer.write_f32("a", array![0.0, value].into_dyn().view()).unwrap_err();
        assert!(matches!(&error, Error::NotRepresentable { index, .. } if *index == [1]), "{error}");
    }
    writer.write_f32("a", good.view()).unwrap(); // a refused write can be repeated
    assert!(matches!(writer.finish(), Err(Error::NotWritten { missing }) if missing == ["b"]));
    assert!(entries(directory.path()).is_empty());
}

#[test]
fn the_destination_is_not_taken_by_surprise() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let write = |value: f32, overwrite: bool| {
        let plan = vec![TensorSpec::new("a", [1], DType::F32)];
        let mut writer = CheckpointWriter::create(&path, plan, WriteOptions { overwrite, ..WriteOptions::default() })?;
        writer.write_f32("a", array![value].into_dyn().view())?;
        writer.finish()
    };
    write(1.0, false).unwrap();
    assert!(matches!(write(2.0, false), Err(Error::DestinationExists { .. })));
    let before = Checkpoint::open(&path).unwrap();
    write(2.0, true).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().read_vector("a").unwrap(), array![2.0]);
    assert_eq!(before.read_vector("a").unwrap(), array![1.0]); // what was open stays readable
    assert_eq!(entries(directory.path()), ["out"]);

    // Somebody else's directory or file is never deleted.
    fs::remove_file(path.join("model.safetensors")).unwrap();
    fs::write(path.join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(write(3.0, true), Err(Error::NotOverwritable { .. })));
    assert_eq!(entries(&path), ["thesis.txt"]);
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    assert!(matches!(write(3.0, true), Err(Error::NotOverwritable { .. })));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    write(4.0, true).unwrap();
    // One with nothing in it is in nobody's way.
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    write(5.0, false).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().read_vector("a").unwrap(), array![5.0]);

    // The destination appears while the writer is at work.
    let late = directory.path().join("late");
    let writer = CheckpointWriter::create(&late, Vec::new(), WriteOptions::default()).unwrap();
    fs::create_dir(&late).unwrap();
    fs::write(late.join("notes.txt"), "").unwrap();
    assert!(matches!(writer.finish(), Err(Error::DestinationExists { .. })));
    assert_eq!(entries(directory.path()), ["late", "out"]);
}

#[cfg(unix)]
#[test]
fn what_is_written_has_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (plain_file, plain_directory) = (directory.path().join("f"), directory.path().join("d"));
    fs::write(&plain_file, "").unwrap();
    fs::create_dir(&plain_directory).unwrap();
    let path = directory.path().join("out");
    CheckpointWriter::create(&path, Vec::new(), WriteOptions::default()).unwrap().finish().unwrap();
    assert_eq!(mode(&path), mode(&plain_directory));
    let file = directory.path().join("x.safetensors");
    write_safetensors_file(&file, &[]).unwrap();
    assert_eq!(mode(&file), mode(&plain_file));
}

#[test]
fn contradictory_plans_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let spec = |name: &str, shape: &[usize], dtype| TensorSpec::new(name, shape, dtype);
    for plan in [
        vec![spec("a", &[1], DType::F32), spec("a", &[1], DType::F32)],
        vec![spec("a", &[32], DType::Q4_0)],
        vec![spec("a", &[usize::MAX, 2], DType::F32)],
        vec![spec("__metadata__", &[1], DType::F32)],
    ] {
        let result = CheckpointWriter::create(&path, plan.clone(), WriteOptions::default());
        assert!(matches!(result, Err(Error::InvalidPlan { .. })), "{plan:?}");
    }
    assert!(entries(directory.path()).is_empty());
}

#[test]
fn side_files_are_carried_over_byte_equal() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    fs::create_dir(&from).unwrap();
    let carried = [
        ("chat_template.jinja", &b"{{ x }}"[..]),
        ("config.json", b"{ \"odd\":   \"spacing\",\r\n \"torch_dtype\": \"float16\"}"),
        ("generation_config.json", b"{}\n\n"),
        ("special_tokens_map.json", b"{}"),
        ("tokenizer.json", b"{\"\\u00e9\": \"\xc3\xa9\"}"),
        ("tokenizer.model", b"\x00\xff\x01"),
        ("tokenizer_config.json", b"{\"a\": 1e400}"),
    ];
    for (name, bytes) in carried {
        fs::write(from.join(name), bytes).unwrap();
    }
    for other in ["README.md", "pytorch_model.bin", "optimizer.pt"] {
        fs::write(from.join(other), "x").unwrap();
    }
    write_safetensors_file(from.join("model.safetensors"), &[]).unwrap();
    let source = Checkpoint::open(&from).unwrap();
    let mut writer = CheckpointWriter::create(&to, Vec::new(), WriteOptions::default()).unwrap();
    for file in source.side_files().unwrap() {
        writer.write_side_file(&file.name, &file.bytes).unwrap();
    }
    for bad in ["../x", "", "a/b", "model.safetensors", "model.safetensors.index.json", "config.json"] {
        assert!(matches!(writer.write_side_file(bad, b""), Err(Error::InvalidSideFile { .. })), "{bad}");
    }
    writer.finish().unwrap();
    let mut expected: Vec<&str> = carried.iter().map(|(name, _)| *name).collect();
    expected.push("model.safetensors");
    expected.sort_unstable();
    assert_eq!(entries(&to), expected);
    for (name, bytes) in carried {
        assert_eq!(fs::read(to.join(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(source.content_hash().unwrap(), Checkpoint::open(&to).unwrap().content_hash().unwrap());
    fs::write(to.join("generation_config.json"), "{}").unwrap();
    assert_ne!(source.content_hash().unwrap(), Checkpoint::open(&to).unwrap().content_hash().unwrap());
    fs::write(to.join("config.json"), "{}").unwrap();
    assert_ne!(source.content_hash().unwrap(), Checkpoint::open(&to).unwrap().content_hash().unwrap());
    assert!(matches!(source.tokenizer_config(), Err(Error::Malformed { .. })));
}

#[test]
fn a_single_file_finds_what_lies_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.safetensors");
    let codes = array![[-8i8, 7], [0, -1]].into_dyn();
    let wide = array![1i64, -5].into_dyn();
    let (bias, scales) = (array![0.25f32].into_dyn(), array![0.1f32, 3.0].into_dyn());
    write_safetensors_file(
        &path,
        &[
            ("codes", TensorData::I8(codes.view())),
            ("wide", TensorData::I64(wide.view())),
            ("scales", TensorData::AsF16(scales.view())),
            ("bias", TensorData::AsBF16(bias.view())),
        ],
    )
    .unwrap();
    fs::write(directory.path().join("config.json"), "{\"model_type\": \"x\"}").unwrap();
    fs::write(directory.path().join("tokenizer.json"), "T").unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.config().unwrap()["model_type"], "x");
    assert_eq!(checkpoint.tokenizer_json().unwrap().unwrap(), b"T");
    assert_eq!(checkpoint.read_matrix("codes").unwrap(), array![[-8.0, 7.0], [0.0, -1.0]]);
    assert_eq!(checkpoint.read_vector("wide").unwrap(), array![1.0, -5.0]);
    assert_eq!(checkpoint.read_vector("scales").unwrap(), array![f16::from_f32(0.1).to_f32(), 3.0]);
    assert!(matches!(checkpoint.read_vector("codes"), Err(Error::Rank { expected: 1, .. })));
    assert!(matches!(checkpoint.read("nothing"), Err(Error::UnknownTensor { .. })));
    let arrays = read_safetensors_file(&path).unwrap();
    assert_eq!(arrays["bias"].dtype, DType::BF16);
    assert_eq!(arrays["bias"].values, bias);

    // A failed write leaves the old file.
    let broken = array![f32::NAN].into_dyn();
    let result = write_safetensors_file(&path, &[("a", TensorData::F32(broken.view()))]);
    assert!(matches!(result, Err(Error::NotRepresentable { .. })));
    assert_eq!(read_safetensors_file(&path).unwrap().len(), 4);
    assert_eq!(entries(directory.path()).len(), 3);
}

#[test]
fn what_is_not_a_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| Checkpoint::open(directory.path().join(name)).unwrap_err();
    assert!(matches!(open("absent"), Error::Io { .. }));
    assert!(matches!(open(""), Error::NotACheckpoint { .. }));
    fs::write(directory.path().join("x.bin"), "").unwrap();
    assert!(matches!(open("x.bin"), Error::NotACheckpoint { .. }));
    assert!(open("").to_string().contains("PyTorch files are not read"));
    fs::write(directory.path().join("empty.safetensors"), "").unwrap();
    assert!(matches!(open("empty.safetensors"), Error::Malformed { fault: Fault::Truncated { .. }, .. }));
    fs::write(directory.path().join("empty.gguf"), "").unwrap();
    assert!(matches!(open("empty.gguf"), Error::Malformed { fault: Fault::Truncated { .. }, .. }));
    fs::create_dir(directory.path().join("d.safetensors")).unwrap();
    assert!(matches!(open("d.safetensors"), Error::NotACheckpoint { .. }));
    write_safetensors_file(directory.path().join("model.safetensors"), &[]).unwrap();
    fs::write(directory.path().join("config.json"), "[]").unwrap();
    assert!(matches!(open(""), Error::Malformed { fault: Fault::Json { .. }, .. }));
}

#[test]
fn non_finite_weights_are_refused_but_can_be_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    let plan = vec![TensorSpec::new("a", [2, 2], DType::F32), TensorSpec::new("f8", [2], DType::F8_E4M3)];
    let mut writer = CheckpointWriter::create(&path, plan, WriteOptions::default()).unwrap();
    let bytes: Vec<u8> = [1.0, 2.0, f32::INFINITY, f32::NAN].into_iter().flat_map(f32::to_le_bytes).collect();
    writer.write_bytes("a", &bytes).unwrap();
    writer.write_bytes("f8", &[1, 2]).unwrap();
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let error = checkpoint.read("a").unwrap_err();
    assert!(matches!(&error, Error::NonFinite { index, .. } if *index == [1, 0]), "{error}");
    assert_eq!(&*checkpoint.read_bytes("a").unwrap(), bytes);
    assert!(matches!(checkpoint.read("f8"), Err(Error::NotDecodable { dtype: DType::F8_E4M3, .. })));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.safetensors");
    let values = matrix(700, 701, 1.0);
    write_safetensors_file(&path, &[("a", TensorData::AsBF16(values.view()))]).unwrap();
    let read = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Checkpoint::open(&path).unwrap().read("a").unwrap())
    };
    assert_eq!(read(1), read(3));
}

#[test]
fn shared_models_read_as_the_reference_implementation_reads_them() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if !shared.exists() {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
        }
        return;
    }
    for model in ["demo-model", "models/stories260K"] {
        let directory = shared.join(model);
        let checkpoint = Checkpoint::open(&directory).unwrap();
        let bytes = fs::read(directory.join("model.safetensors")).unwrap();
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(checkpoint.tensors().len(), theirs.len());
        for (name, view) in theirs.iter() {
            let read = checkpoint.read(name).unwrap();
            assert_eq!(read.shape(), view.shape());
            let expected: Vec<f32> = match view.dtype() {
                safetensors::Dtype::F32 => {
                    view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
                }
                safetensors::Dtype::BF16 => {
                    view.data().chunks(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(read.into_raw_vec_and_offset().0, expected, "{name}");
        }
        assert!(checkpoint.config().unwrap()["hidden_size"].is_u64());
        assert!(checkpoint.tokenizer_json().unwrap().is_some());
        assert!(checkpoint.tokenizer_config().unwrap().is_some());
        assert_eq!(checkpoint.content_hash().unwrap().len(), 64);
    }
}

#[test]
fn what_was_read_is_given_back_and_read_again_with_the_same_values() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.safetensors");
    // Longer than one piece of the hash, and not a whole number of pages.
    let values = Array2::from_shape_fn((4801, 1024), |(row, column)| (row * 7 + column) as f32).into_dyn();
    write_safetensors_file(&path, &[("a", TensorData::F32(values.view()))]).unwrap();
    fs::write(directory.path().join("config.json"), "{}").unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let part = TensorPart::whole("a", [4801, 1024]);
    for _ in 0..2 {
        assert_eq!(checkpoint.read("a").unwrap(), values);
        let rows = checkpoint.read_part(&part, 10).unwrap();
        assert_eq!(rows.into_dyn(), values.slice(ndarray::s![..10, ..]).to_owned().into_dyn());
        let mut whole = Sha256::new();
        for (role, bytes) in [("weights", fs::read(&path).unwrap()), ("config.json", b"{}".to_vec())] {
            whole.update(role);
            whole.update((bytes.len() as u64).to_le_bytes());
            whole.update(bytes);
        }
        assert_eq!(checkpoint.content_hash().unwrap(), format!("{:x}", whole.finalize()));
    }
    #[cfg(target_os = "linux")]
    {
        // All of the file has been looked at, and little of it is still held.
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mapping = smaps.split_once(path.to_str().unwrap()).unwrap().1;
        let held = mapping.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let held: usize = held.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(held < 1024, "{held} kB of 19 MB");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is written, in whatever shards and order, is read back, here and by the format's own implementation.
    #[test]
    fn any_plan_round_trips(
        shapes in prop::collection::vec((prop::collection::vec(0usize..5, 0..4), 0usize..3), 0..8),
        max_shard_bytes in 0u64..400,
        seed in any::<u32>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let types = [DType::F32, DType::F16, DType::BF16];
        let plan: Vec<TensorSpec> = shapes.iter().enumerate()
            .map(|(i, (shape, dtype))| TensorSpec::new(format!("t \"{i}\"\n"), shape.clone(), types[*dtype])).collect();
        // Small integers are exact in every type.
        let values: BTreeMap<&str, ArrayD<f32>> = plan.iter().map(|spec| {
            let count: usize = spec.shape.iter().product();
            let numbers = Array1::from_shape_fn(count, |i| ((i as u32 * 7 + seed) % 200) as f32 - 100.0);
            (spec.name.as_str(), numbers.into_shape_with_order(spec.shape.clone()).unwrap())
        }).collect();
        let options = WriteOptions { max_shard_bytes, ..WriteOptions::default() };
        let mut writer = CheckpointWriter::create(&path, plan.clone(), options).unwrap();
        for (name, values) in values.iter().rev() {
            writer.write_f32(name, values.view()).unwrap();
        }
        let written = writer.finish().unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        prop_assert_eq!(checkpoint.tensors().len(), plan.len());
        for (name, values) in &values {
            prop_assert_eq!(&checkpoint.read(name).unwrap(), values);
        }
        let mut theirs = 0;
        for name in entries(&path).iter().filter(|name| name.ends_with(".safetensors")) {
            theirs += SafeTensors::deserialize(&fs::read(path.join(name)).unwrap()).unwrap().len();
        }
        prop_assert_eq!(theirs, plan.len());
        prop_assert_eq!(written.bytes, plan.iter().map(|spec| spec.dtype.bytes_for(&spec.shape).unwrap()).sum::<u64>());
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let blob = directory.path().join("blob.safetensors");
    let values = ndarray::array![[1.0_f32]].into_dyn();
    sparq_tensor::write_safetensors_file(&blob, &[("w", sparq_tensor::TensorData::F32(values.view()))]).unwrap();
    let snapshot = directory.path().join("snapshot");
    std::fs::create_dir(&snapshot).unwrap();
    let link = snapshot.join("model.safetensors");
    std::os::unix::fs::symlink(&blob, &link).unwrap();
    let checkpoint = sparq_tensor::Checkpoint::open(&snapshot).unwrap();
    assert_eq!(checkpoint.read("w").unwrap(), values);
    assert_eq!(checkpoint.links().unwrap(), [(link, blob.canonicalize().unwrap())]);
    assert!(sparq_tensor::Checkpoint::open(&blob).unwrap().links().unwrap().is_empty());
}

#[test]
fn parts_of_tensors_are_their_rows() {
    let directory = tempfile::tempdir().unwrap();
    let fused = ndarray::Array2::from_shape_fn((7, 5), |(i, j)| (i * 5 + j) as f32);
    let stacked = ndarray::Array3::from_shape_fn((3, 4, 5), |(e, i, j)| (e * 100 + i * 5 + j) as f32);
    let path = directory.path().join("model.safetensors");
    let (fused_view, stacked_view) = (fused.view().into_dyn(), stacked.view().into_dyn());
    let tensors = [
        ("fused", TensorData::F32(fused_view.clone())),
        ("halves", TensorData::AsBF16(fused_view)),
        ("stacked", TensorData::F32(stacked_view)),
    ];
    write_safetensors_file(&path, &tensors).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let part = |tensor: &str, shape: &[usize], first_row, transposed| TensorPart {
        tensor: tensor.to_owned(),
        shape: shape.to_vec(),
        first_row,
        transposed,
    };
    for (first_row, rows) in [(0, 7), (0, 3), (3, 4), (6, 1), (2, 0)] {
        for name in ["fused", "halves"] {
            let read = checkpoint.read_part(&part(name, &[7, 5], first_row, false), rows).unwrap();
            assert_eq!(read, fused.slice(ndarray::s![first_row..first_row + rows, ..]), "{name}");
        }
    }
    // Stored as [in, out]: output features are columns.
    let read = checkpoint.read_part(&part("fused", &[7, 5], 1, true), 3).unwrap();
    assert_eq!(read, fused.slice(ndarray::s![.., 1..4]).t());
    // Matrices of a stack one below the other.
    let read = checkpoint.read_part(&part("stacked", &[3, 4, 5], 2 * 4 + 1, false), 2).unwrap();
    assert_eq!(read, stacked.slice(ndarray::s![2, 1..3, ..]));
    for (outside, rows) in [
        (part("fused", &[7, 5], 5, false), 3),
        (part("fused", &[7, 5], usize::MAX, false), 2),
        (part("fused", &[5, 7], 0, false), 2),
        (part("stacked", &[3, 4, 5], 0, true), 2),
    ] {
        assert!(matches!(checkpoint.read_part(&outside, rows), Err(Error::Rank { .. })), "{outside:?}");
    }
    assert!(matches!(checkpoint.read_part(&part("absent", &[7, 5], 0, false), 1), Err(Error::UnknownTensor { .. })));
}
