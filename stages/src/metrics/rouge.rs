//! ROUGE-L of one answer (Lin 2004), as pycocoevalcap 1.2 computes it: the longest common subsequence, the best precision
//! and the best recall over the references taken independently, combined with beta 1.2.

use super::Caption;

const BETA: f64 = 1.2;

/// ROUGE-L, from 0 to 1. The score of a corpus is the mean.
pub fn rouge_l(caption: &Caption) -> f64 {
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in &caption.references {
        let common = common_subsequence(&caption.candidate, reference);
        precision = precision.max(share(common, caption.candidate.len()));
        recall = recall.max(share(common, reference.len()));
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Length of the longest common subsequence; time is the product of the lengths, memory one row.
fn common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
