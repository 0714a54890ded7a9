//! Cross-entropy of answer tokens, computed only where there is one.
//!
//! In: final hidden states of the rows that predict an answer token, the head's weight, the tokens. Out: the
//! summed loss, ready for backward, and per-token values for reports.
//!
//! With 151,936 tokens in the vocabulary, logits are the largest tensor of a step. They are made for some
//! rows at a time and dropped at once: the gradient of cross-entropy is known (`softmax - one_hot`), so that
//! its product with the head is taken in the forward pass and nothing of vocabulary size waits for backward.
//!
//! Likewise the decoder's last layer makes keys and values for all tokens but outputs for those positions alone, and the tokens that
//! all rows begin with are computed once while the language model is frozen. Losses agree with the plain way to rounding
//! (`tests/training.rs`).

use burn::tensor::{FloatDType, IndexingUpdateOp, Int, Tensor, TensorData, activation::softmax};

use crate::kernels::{self, Predicted};
use crate::product::rows_by_weight;

/// Most logits held at once: 64 MiB in f32.
const LOGITS: usize = 1 << 24;

/// The loss of some answer tokens.
#[derive(Clone, Debug)]
pub struct AnswerLoss {
    /// Sum over the tokens, `[1]`; call backward on it, divided by the tokens of the whole step.
    pub sum: Tensor<1>,
    /// Each token's negative log-likelihood in nats, `[tokens]`, outside of autodiff.
    pub per_token: Tensor<1>,
    /// 1 where the token was the likeliest, else 0, `[tokens]`.
    pub correct: Tensor<1, Int>,
}

/// One run of rows: values for reports, gradients for backward.
struct Run {
    losses: Tensor<1>,
    correct: Tensor<1, Int>,
    hidden_grad: Option<Tensor<2>>,
    head_grad: Option<Tensor<2>>,
}

/// The positions whose label is a token, and these tokens; `ignore_index` and any other negative label
/// carry no loss.
pub fn answer_positions(labels: &[i32]) -> (Vec<usize>, Vec<u32>) {
    let answers = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
    answers.map(|(position, label)| (position, *label as u32)).unzip()
}

/// Cross-entropy of `targets`, one for each row of `hidden`, none of them empty.
///
/// # Shapes
/// - hidden: `[rows, hidden_size]`, head: `[vocab_size, hidden_size]`
pub fn answer_loss(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32]) -> AnswerLoss {
    answer_loss_in_runs(hidden, head, targets, (LOGITS / head.dims()[0]).max(1))
}

/// As [`answer_loss`], with the logits of `rows_at_once` rows at a time.
pub(crate) fn answer_loss_in_runs(
    hidden: Tensor<2>,
    head: &Tensor<2>,
    targets: &[u32],
    rows_at_once: usize,
) -> AnswerLoss {
    let [rows, _] = hidden.dims();
    let trains = hidden.is_tracked() || head.is_tracked();
    let mut runs: Vec<Run> = Vec::new();
    // Of all runs together, in f32: a run's own has the size of the head.
    let mut head_grad: Option<Tensor<2>> = None;
    for start in (0..rows).step_by(rows_at_once) {
        let length = rows_at_once.min(rows - start);
        let hidden = hidden.clone().inner().narrow(0, start, length);
        let mut run = run(hidden, head, &targets[start..start + length], trains);
        if let Some(grad) = run.head_grad.take().map(|grad| grad.cast(FloatDType::F32)) {
            head_grad = Some(head_grad.map_or(grad.clone(), |sum| sum + grad));
        }
        runs.push(run);
    }
    let per_token = Tensor::cat(runs.iter().map(|run| run.losses.clone()).collect(), 0);
    let correct = Tensor::cat(runs.iter().map(|run| run.correct.clone()).collect(), 0);
    let value = per_token.clone().sum();
    let sum = if trains { with_gradient(value, hidden, head, runs, head_grad) } else { value };
    AnswerLoss { sum, per_token, correct }
}

fn run(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32], trains: bool) -> Run {
    let on_cpu = kernels::takes(&hidden) && kernels::takes(head);
    if on_cpu {
        run_on_cpu(hidden, head, targets, trains)
    } else {
        run_anywhere(hidden, head, targets, trains)
    }
}

fn run_on_cpu(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32], trains: bool) -> Run {
    let weight = head.clone().inner();
    let logits = rows_by_weight(hidden.clone(), &weight);
    let Predicted { losses, correct, gradient } = kernels::cross_entropy(logits, targets, trains);
    Run {
        losses,
        correct,
        hidden_grad: gradient.clone().map(|gradient| kernels::product(gradient, &weight)),
        head_grad: gradient.filter(|_| head.is_tracked()).map(|grad| grad.transpose().matmul(hidden)),
    }
}

fn run_anywhere(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32], trains: bool) -> Run {
    let dtype = hidden.dtype();
    let weight = head.clone().inner();
    let targets: Vec<i32> = targets.iter().map(|target| *target as i32).collect();
    let shape = [targets.len(), 1];
    let targets: Tensor<2, Int> = Tensor::from_data(TensorData::new(targets, shape), &hidden.device());

    let logits = rows_by_weight(hidden.clone(), &weight).cast(FloatDType::F32);
    let (largest, likeliest) = logits.clone().max_dim_with_indices(1);
    let target_logits = logits.clone().gather(1, targets.clone());
    let probabilities = softmax(logits, 1);
    // log sum exp: the likeliest token's probability is `exp(0) / sum` after the largest logit is taken off.
    let log_sums = largest - probabilities.clone().gather(1, likeliest.clone()).log();
    let losses = log_sums - target_logits;

    let logit_grad = trains.then(|| {
        let minus_one = Tensor::full(shape, -1.0, &hidden.device());
        probabilities.scatter(1, targets.clone(), minus_one, IndexingUpdateOp::Add).cast(dtype)
    });
    Run {
        losses: losses.squeeze_dim(1),
        correct: likeliest.equal(targets).int().squeeze_dim(1),
        hidden_grad: logit_grad.clone().map(|grad| grad.matmul(weight)),
        head_grad: logit_grad.filter(|_| head.is_tracked()).map(|grad| grad.transpose().matmul(hidden)),
    }
}

/// `value`, with the given gradients in backward: a linear function with these slopes, shifted to `value`.
fn with_gradient(
    value: Tensor<1>,
    hidden: Tensor<2>,
    head: &Tensor<2>,
    runs: Vec<Run>,
    head_grad: Option<Tensor<2>>,
) -> Tensor<1> {
    let hidden_grad = Tensor::cat(runs.into_iter().filter_map(|run| run.hidden_grad).collect(), 0);
    let mut slope = (hidden * hidden_grad).sum().cast(FloatDType::F32);
    if let Some(head_grad) = head_grad {
        slope = slope + (head.clone().cast(FloatDType::F32) * head_grad).sum();
    }
    slope.clone() - slope.inner() + value
}
