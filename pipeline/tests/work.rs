//! Tasks done one by one, as other processes do them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{ALL_ROLES, World, counts, lines, watched};
use llavm_pipeline::{Ended, Silent, TaskSpec};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

fn world() -> World {
    let world = World::new(ALL_ROLES);
    world.write("a.txt", &(lines("a", 700) + &lines("REJECT", 20) + &lines("a", 100)));
    world
}

/// Done and reused, to be tried again, failed.
fn work(world: &World, tasks: &[TaskSpec]) -> Vec<String> {
    let ends = Mutex::new(Vec::new());
    watched("work", || {
        world.engine().work(tasks, false, &Silent, &AtomicBool::new(false), &|task, ended| {
            let text = match ended {
                Ended::Done(done) if done.reused => "reused".to_owned(),
                Ended::Done(_) => "done".to_owned(),
                Ended::Again(why) => format!("again: {why}"),
                Ended::Failed(cause) => format!("failed: {cause}"),
            };
            ends.lock().unwrap().push(format!("{} {} {text}", task.stage, task.index));
        })
    })
    .unwrap();
    ends.into_inner().unwrap()
}

#[test]
fn tasks_done_one_by_one_give_what_a_run_gives() {
    let undisturbed = world();
    undisturbed.run();
    let world = world();
    let mut rounds = 0;
    loop {
        let ready = world.engine().ready().unwrap();
        if ready.is_empty() {
            break;
        }
        // What is ready travels as text.
        let lines: Vec<String> = ready.iter().map(|task| serde_json::to_string(task).unwrap()).collect();
        let tasks: Vec<TaskSpec> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ends = work(&world, &tasks);
        assert!(ends.iter().all(|end| end.ends_with(" done")), "{ends:?}");
        let again = work(&world, &tasks);
        assert!(again.iter().all(|end| end.ends_with(" reused")), "{again:?}");
        rounds += 1;
        assert!(rounds < 10);
    }
    assert!(world.stored() == undisturbed.stored());
    assert_eq!(world.ran(), counts([]));
    world.assert_verified();
}

#[test]
fn a_task_whose_input_is_not_there_is_tried_again_and_one_with_another_key_fails() {
    let world = world();
    let ready = world.engine().ready().unwrap();
    let task = |stage: &str| ready.iter().find(|task| task.stage == stage).unwrap().clone();
    let other = TaskSpec { key: "0".repeat(64), ..task("pixels") };
    let late = TaskSpec { stage: "loud".to_owned(), ..task("pixels") };
    let strange = TaskSpec { index: 99, ..task("pixels") };
    let ends = work(&world, &[other, late, strange]);
    let end = |start: &str| ends.iter().find(|end| end.starts_with(start)).unwrap().clone();
    assert!(end("pixels 0 ").starts_with("pixels 0 failed: task 0 of `pixels` is asked for as 0000"));
    assert_eq!(end("loud 0 "), "loud 0 again: something it needs is not there yet");
    assert_eq!(end("pixels 99 "), "pixels 99 failed: the manifest has no task 99 of a stage `pixels`");
}

#[test]
fn several_workers_on_the_same_tasks_do_each_once() {
    let world = world();
    let tasks: Vec<TaskSpec> =
        world.engine().ready().unwrap().into_iter().filter(|task| task.stage == "pixels").collect();
    let ends = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mine = work(&world, &tasks);
                ends.lock().unwrap().extend(mine);
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    assert_eq!(ends.iter().filter(|end| end.ends_with(" done")).count(), tasks.len(), "{ends:?}");
    assert!(ends.iter().all(|end| !end.contains("failed")), "{ends:?}");
}
