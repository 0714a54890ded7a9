//! Both readers against files that PyTorch and safetensors wrote, and against broken ones.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype, TensorView, serialize};
use burn::tensor::DType;
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

fn values(checkpoint: &Checkpoint, key: &str) -> Vec<f32> {
    checkpoint.read(key, DType::F32).unwrap().unwrap().iter::<f32>().collect()
}

/// A safetensors file `{"b": f32 [2], "a": bf16 [1, 3]}`.
fn safetensors_bytes() -> Vec<u8> {
    let b: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let a: Vec<u8> = [1.0, -0.5, 3.0].iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
    let views = [
        ("b", TensorView::new(Dtype::F32, vec![2], &b).unwrap()),
        ("a", TensorView::new(Dtype::BF16, vec![1, 3], &a).unwrap()),
    ];
    serialize(views, None).unwrap()
}

fn file_of(bytes: &[u8], name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The error of opening `bytes` as a safetensors file, without the folder's changing name.
fn refusal(bytes: &[u8]) -> String {
    let (folder, path) = file_of(bytes, "model.safetensors");
    let error = Checkpoint::open_file(&path).unwrap_err().to_string();
    error.replace(folder.path().to_str().unwrap(), "/m")
}

#[test]
fn a_safetensors_file_gives_its_tensors_by_key() {
    let (folder, _) = file_of(&safetensors_bytes(), "model.safetensors");
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((checkpoint.shape("a"), checkpoint.shape("b")), (Some(&[1, 3][..]), Some(&[2][..])));
    assert_eq!(values(&checkpoint, "a"), [1.0, -0.5, 3.0]);
    assert_eq!(values(&checkpoint, "b"), [1.5, -2.0]);
    assert!(checkpoint.read("c", DType::F32).is_none());
}

#[test]
fn both_layouts_of_torch_save_hold_the_same_tensors() {
    for name in ["zip.bin", "legacy.bin"] {
        let checkpoint = Checkpoint::open_file(&fixture(name)).unwrap();
        let read = |key| values(&checkpoint, key);
        assert_eq!(read("f32"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{name}");
        assert_eq!(checkpoint.shape("f32"), Some(&[2, 3][..]), "{name}");
        assert_eq!(read("f16"), [0.5, 1.5, -2.0], "{name}");
        assert_eq!(read("bf16"), [1.0, -3.0], "{name}");
        assert_eq!(read("f64"), [0.1], "{name}");
        assert_eq!((read("scalar"), checkpoint.shape("scalar")), (vec![7.0], Some(&[][..])), "{name}");
        assert_eq!(read("tail"), [4.0, 5.0], "{name}: a view starts inside its storage");
        assert_eq!(read("parameter"), [8.0, 9.0], "{name}");
        assert_eq!(checkpoint.stored("position_ids"), Some(&Stored::Other("Long".to_owned())), "{name}");
        assert_eq!(checkpoint.keys().count(), 8, "{name}: attributes such as _metadata are no tensors");
    }
}

#[test]
fn integers_are_no_parameters() {
    let checkpoint = Checkpoint::open_file(&fixture("zip.bin")).unwrap();
    let error = checkpoint.read("position_ids", DType::F32).unwrap().unwrap_err().to_string();
    assert!(
        error.ends_with("`position_ids` is stored as Long; a parameter needs f64, f32, f16 or bf16."),
        "{error}"
    );
}

#[test]
fn a_transposed_tensor_is_refused_and_its_neighbours_are_not() {
    let checkpoint = Checkpoint::open_file(&fixture("strided.bin")).unwrap();
    assert_eq!(values(&checkpoint, "plain"), [3.0]);
    let error = checkpoint.read("turned", DType::F32).unwrap().unwrap_err().to_string();
    assert!(error.contains("strides are not contiguous"), "{error}");
}

#[test]
fn a_pickle_that_runs_a_command_is_refused_by_name() {
    let error = Checkpoint::open_file(&fixture("hostile.bin")).unwrap_err().to_string();
    assert!(
        error.contains("asks Python for `posix.system`, which is no tensor; it was not executed."),
        "{error}"
    );
}

#[test]
fn every_pair_of_types_rounds_to_nearest() {
    let numbers = [0.0, -1.0, 0.1, 1e-6, 1.0 / 3.0, 65504.0, 1e9, f64::INFINITY];
    let stored: [(Dtype, Vec<u8>); 4] = [
        (Dtype::F64, numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        (Dtype::F32, numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect()),
        (Dtype::F16, numbers.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect()),
        (Dtype::BF16, numbers.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()).collect()),
    ];
    for (dtype, bytes) in stored {
        let view = TensorView::new(dtype, vec![numbers.len()], &bytes).unwrap();
        let (_folder, path) = file_of(&serialize([("x", view)], None).unwrap(), "x.safetensors");
        let checkpoint = Checkpoint::open_file(&path).unwrap();
        let as_f32 = values(&checkpoint, "x");
        let as_f16 = checkpoint.read("x", DType::F16).unwrap().unwrap();
        let as_bf16 = checkpoint.read("x", DType::BF16).unwrap().unwrap();
        for (i, x) in numbers.iter().enumerate() {
            let kept = match dtype {
                Dtype::F16 => f16::from_f64(*x).to_f32(),
                Dtype::BF16 => bf16::from_f64(*x).to_f32(),
                _ => *x as f32,
            };
            assert_eq!(as_f32[i].to_bits(), kept.to_bits(), "{dtype:?} {x}");
            assert_eq!(as_f16.as_slice::<f16>().unwrap()[i], f16::from_f32(kept), "{dtype:?} {x}");
            assert_eq!(as_bf16.as_slice::<bf16>().unwrap()[i], bf16::from_f32(kept), "{dtype:?} {x}");
        }
    }
}

#[test]
fn tensors_longer_than_a_piece_keep_their_order() {
    let numbers: Vec<f32> = (0..9_000_000_u32).map(|i| i as f32).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![numbers.len()], &bytes).unwrap();
    let (_folder, path) = file_of(&serialize([("x", view)], None).unwrap(), "x.safetensors");
    assert!(values(&Checkpoint::open_file(&path).unwrap(), "x") == numbers);
}

#[test]
fn shards_are_read_as_one_and_must_fit_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let one = 1.0_f32.to_le_bytes();
    for (key, name) in [("a", "model-00001-of-00002.safetensors"), ("b", "model-00002-of-00002.safetensors")]
    {
        let view = TensorView::new(Dtype::F32, vec![1], &one).unwrap();
        fs::write(folder.path().join(name), serialize([(key, view)], None).unwrap()).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    let map = r#"{"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    fs::write(&index, map).unwrap();
    assert_eq!(values(&Checkpoint::open(folder.path()).unwrap(), "b"), [1.0]);

    fs::write(&index, map.replace("\"b\":", "\"c\":")).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("`c` is not in model-00002-of-00002.safetensors"), "{error}");

    fs::write(&index, map.replace("model-00002-of", "../model-00002-of")).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("outside its folder"), "{error}");
}

#[test]
fn a_sharded_bin_checkpoint_is_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture("zip.bin"), folder.path().join("pytorch_model-00001-of-00001.bin")).unwrap();
    let map = r#"{"weight_map": {"tail": "pytorch_model-00001-of-00001.bin"}}"#;
    fs::write(folder.path().join("pytorch_model.bin.index.json"), map).unwrap();
    assert_eq!(values(&Checkpoint::open(folder.path()).unwrap(), "tail"), [4.0, 5.0]);
}

#[test]
fn a_folder_without_weights_says_what_was_looked_for() {
    let error = Checkpoint::open(Path::new("/m")).unwrap_err();
    insta::assert_snapshot!(error, @"/m holds no weights: looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json.");
}

#[test]
fn broken_files_say_how_they_are_broken() {
    let good = safetensors_bytes();
    let text = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        refusal(&bytes)
    };
    insta::assert_snapshot!(refusal(&good[..good.len() - 1]), @"/m/model.safetensors: is truncated or has bytes appended: its header describes another length than 133 bytes. Download it again.");
    insta::assert_snapshot!(refusal(&good[..20]), @"/m/model.safetensors: is truncated: 20 bytes do not hold the header. Download it again.");
    insta::assert_snapshot!(refusal(b""), @"/m/model.safetensors: the file is empty: download it again");
    insta::assert_snapshot!(refusal(b"<!DOCTYPE html><html>"), @"/m/model.safetensors: it is a web page (HTML), such as a login or an error page: download the file itself: the address may need a login, or its raw form");
    insta::assert_snapshot!(refusal(b"version https://git-lfs.github.com/spec/v1\noid"), @"/m/model.safetensors: it is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download it with `llavm fetch`");
    insta::assert_snapshot!(text(r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#), @"/m/model.safetensors: is corrupt: the bytes of `y` overlap another tensor's or leave a gap.");
    insta::assert_snapshot!(text(r#"{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#), @"/m/model.safetensors: is no usable safetensors file: invalid shape, data type, or offset for tensor.");
    insta::assert_snapshot!(text(r#"{"x":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}}"#), @"/m/model.safetensors: is no usable safetensors file: invalid JSON in header: unknown variant `Q4`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 53.");
    insta::assert_snapshot!(text("not json"), @"/m/model.safetensors: is no usable safetensors file: invalid JSON in header: expected ident at line 1 column 2.");
}

#[test]
fn a_truncated_torch_file_is_an_error_at_every_length() {
    for name in ["zip.bin", "legacy.bin"] {
        let good = fs::read(fixture(name)).unwrap();
        for length in (0..good.len()).step_by(7) {
            let (_folder, path) = file_of(&good[..length], "pytorch_model.bin");
            assert!(Checkpoint::open_file(&path).is_err(), "{name} cut to {length} bytes");
        }
    }
}

/// Opens and reads everything in a file; what matters is that this returns.
fn read_all(path: &Path) {
    if let Ok(checkpoint) = Checkpoint::open_file(path) {
        for key in checkpoint.keys() {
            let _ = checkpoint.read(key, DType::F32);
        }
    }
}

proptest! {
    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..4000, value: u8, which in 0..3) {
        let (mut bytes, name) = match which {
            0 => (safetensors_bytes(), "model.safetensors"),
            1 => (fs::read(fixture("zip.bin")).unwrap(), "pytorch_model.bin"),
            _ => (fs::read(fixture("legacy.bin")).unwrap(), "pytorch_model.bin"),
        };
        let length = bytes.len();
        bytes[at % length] = value;
        let (_folder, path) = file_of(&bytes, name);
        read_all(&path);
    }
}

#[test]
fn metadata_of_other_writers_is_accepted() {
    let one = 1.0_f32.to_le_bytes();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let view = TensorView::new(Dtype::F32, vec![], &one).unwrap();
    let (_folder, path) = file_of(&serialize([("x", view)], Some(metadata)).unwrap(), "x.safetensors");
    assert_eq!(values(&Checkpoint::open_file(&path).unwrap(), "x"), [1.0]);
}
