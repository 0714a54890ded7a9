//! A training on several devices is the training on one: here ranks of the CPU, which are threads of the program as GPUs' are.

use crate::project::text;
use crate::train::{BASE, assert_outlives_kills, folder, metrics, numbers, project};

/// Four forward passes a step on `device`.
fn on(device: &str) -> String {
    format!("{BASE}device = \"{device}\"\ngradient_accumulation_steps = 4\n")
}

#[test]
fn killed_at_any_step_ranks_end_as_if_they_had_never_been() {
    assert_outlives_kills(&on("cpu:0,1"));
}

#[test]
fn the_manifest_for_one_device_trains_the_same_on_several() {
    let of = |device: &str| {
        let project = project(&[&on(device)]);
        project.run(&["m.toml"]);
        let metrics = metrics(&folder(&project, "base"));
        ["loss", "grad_norm", "lr"].map(|column| numbers(&metrics, column))
    };
    let one = of("cpu");
    for device in ["cpu:0,1", "cpu:0,1,2"] {
        for (several, one) in of(device).iter().zip(&one) {
            let apart = several.iter().zip(one).map(|(a, b)| (a / b - 1.0).abs());
            // Twelve steps of 1e-2; the first has a learning rate of its own, which is never 0 here.
            assert!(apart.fold(0.0, f64::max) < 1e-4, "{device}: {several:?}\n{one:?}");
        }
    }
}

#[test]
fn devices_that_cannot_be_are_refused_before_anything_runs() {
    let refused = |lines: &str| {
        let project = project(&[&format!("{BASE}{lines}")]);
        let output = project.llavm(&["run", "m.toml"]);
        assert!(!output.status.success() && !project.path(".llavm/tables").exists());
        text(&output)
    };
    let idle = refused("device = \"cpu:0,1,2\"\ngradient_accumulation_steps = 2\n");
    assert!(idle.contains("gradient_accumulation_steps"), "{idle}");
    assert!(idle.contains("is less than the 3 devices of `cpu:0,1,2`"), "{idle}");
    let twice = refused("device = \"cuda:0,0\"\ngradient_accumulation_steps = 2\n");
    assert!(twice.contains("device `cuda:0,0` names a device twice"), "{twice}");
    let unknown = refused("device = \"wgpu:0,1\"\n");
    assert!(unknown.contains("unknown device `wgpu:0,1`"), "{unknown}");
}
