//! What both targets for weights do: write the bytes to a file, open it, read every tensor.
//!
//! Whatever the bytes are, there must be tensors of the shape that was promised, or an error.

use burn::tensor::DType;
use llavm_model::weights::Checkpoint;

/// Reads `bytes` as a weights file called `name`.
pub fn read_weights(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    let Ok(checkpoint) = Checkpoint::open_file(&path) else { return };
    for key in checkpoint.keys() {
        let shape = checkpoint.shape(key).expect("a key has a shape");
        for dtype in [DType::F32, DType::BF16] {
            if let Ok(data) = checkpoint.read(key, dtype).expect("a key has a tensor") {
                assert_eq!(data.shape().as_slice(), shape);
                assert_eq!(data.num_elements(), shape.iter().product::<usize>());
            }
        }
    }
}
