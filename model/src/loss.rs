//! Cross-entropy of answer tokens, computed only where there is one.
//!
//! In: final hidden states of the rows that predict an answer token, the head's weight, the tokens. Out: the
//! summed loss, ready for backward, and per-token values for reports.
//!
//! With 151,936 tokens in the vocabulary, logits are the largest tensor of a step. They are made for some
//! rows at a time and dropped at once: the gradient of cross-entropy is known (`softmax - one_hot`), so that
//! its product with the head is taken in the forward pass and nothing of vocabulary size waits for backward.

use burn::tensor::{FloatDType, IndexingUpdateOp, Int, Tensor, TensorData, activation::softmax};

use crate::linear::rows_by_weight;

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
    let [rows, _] = hidden.dims();
    let rows_at_once = (LOGITS / head.dims()[0]).max(1);
    let trains = hidden.is_tracked() || head.is_tracked();
    let runs: Vec<Run> = (0..rows)
        .step_by(rows_at_once)
        .map(|start| {
            let length = rows_at_once.min(rows - start);
            let hidden = hidden.clone().inner().narrow(0, start, length);
            run(hidden, head, &targets[start..start + length], trains)
        })
        .collect();
    let per_token = Tensor::cat(runs.iter().map(|run| run.losses.clone()).collect(), 0);
    let correct = Tensor::cat(runs.iter().map(|run| run.correct.clone()).collect(), 0);
    let value = per_token.clone().sum();
    let sum = if trains { with_gradient(value, hidden, head, runs) } else { value };
    AnswerLoss { sum, per_token, correct }
}

fn run(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32], trains: bool) -> Run {
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
fn with_gradient(value: Tensor<1>, hidden: Tensor<2>, head: &Tensor<2>, mut runs: Vec<Run>) -> Tensor<1> {
    let head_grad = runs.iter_mut().filter_map(|run| run.head_grad.take()).reduce(|sum, grad| sum + grad);
    let hidden_grad = Tensor::cat(runs.into_iter().filter_map(|run| run.hidden_grad).collect(), 0);
    let mut slope = (hidden * hidden_grad).sum();
    if let Some(head_grad) = head_grad {
        slope = slope + (head.clone() * head_grad).sum();
    }
    let slope = slope.cast(FloatDType::F32);
    slope.clone() - slope.inner() + value
}
