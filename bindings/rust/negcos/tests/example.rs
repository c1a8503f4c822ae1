// SPDX-License-Identifier: Apache-2.0
#[allow(dead_code)] // its main
#[path = "../examples/two_tower.rs"]
mod two_tower;

#[test]
fn training_raises_recall() {
    let (before, after) = two_tower::train().unwrap();
    assert!(before < 0.05, "Recall@10 begins at {before}");
    assert!(after > 0.8, "Recall@10 ends at {after}");
}
