// SPDX-License-Identifier: Apache-2.0
use negcos::*;

fn estimates(frequency: &Frequency, ids: &[i64]) -> Vec<f64> {
    let mut log_probability = vec![0.0; ids.len()];
    frequency.log_probability(ids, &mut log_probability).unwrap();
    log_probability
}

#[test]
fn shares_of_a_count_min_sketch() {
    let mut frequency =
        Frequency::builder().method(FrequencyMethod::CountMin).hashes(3).buckets(1 << 12).seed(9).build().unwrap();
    frequency.update(&[1, 1, 1, 2]).unwrap();
    frequency.update(&[]).unwrap();
    let got = estimates(&frequency, &[1, 2, -5]);
    for (estimate, share) in got.iter().zip([0.75_f64, 0.25, 0.2]) {
        assert!((estimate - share.ln()).abs() < 1e-12, "{got:?}");
    }
}

#[test]
fn steps_between_batches() {
    let mut frequency = Frequency::builder().buckets(1 << 12).learning_rate(0.5).build().unwrap();
    for step in 0..100 {
        frequency.update(if step % 4 == 0 { &[1, 2, 2] } else { &[1] }).unwrap();
    }
    let got = estimates(&frequency, &[1, 2]);
    assert!(got[0].abs() < 1e-6 && (got[1] - 0.25_f64.ln()).abs() < 1e-6, "{got:?}");

    let begun = Frequency::builder().buckets(8).initial_gap(16.0).build().unwrap();
    assert!((estimates(&begun, &[3])[0] + 16.0_f64.ln()).abs() < 1e-12);
}

#[test]
fn saved_and_loaded() {
    let path = std::env::temp_dir().join(format!("negcos-frequency-{}", std::process::id()));
    let mut frequency = Frequency::builder().buckets(64).build().unwrap();
    frequency.update(&[1, 2, 3]).unwrap();
    frequency.save(&path).unwrap();
    let mut loaded = Frequency::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for frequency in [&mut frequency, &mut loaded] {
        frequency.update(&[2]).unwrap();
    }
    assert_eq!(estimates(&frequency, &[1, 2, 3, 4]), estimates(&loaded, &[1, 2, 3, 4]));

    for path in [path.as_path(), "with\0zero".as_ref()] {
        assert_eq!(Frequency::load(path).unwrap_err().status, Status::Io);
    }
    assert_eq!(frequency.save("/no/such/folder/file").unwrap_err().status, Status::Io);
}

#[test]
fn many_readers() {
    let mut frequency = Frequency::new().unwrap();
    let ids: Vec<i64> = (0..1000).collect();
    frequency.update(&ids).unwrap();
    let expected = estimates(&frequency, &ids);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(estimates(&frequency, &ids), expected));
        }
    });
}

#[test]
fn wrong_arguments() {
    let status = |builder: FrequencyBuilder| builder.build().unwrap_err().status;
    let builder = Frequency::builder();
    assert_eq!(status(builder.hashes(u32::MAX)), Status::Value);
    assert_eq!(status(builder.buckets(0)), Status::Value);
    assert_eq!(status(builder.buckets(u64::MAX)), Status::Value);
    assert_eq!(status(builder.learning_rate(2.0)), Status::Value);
    assert_eq!(status(builder.initial_gap(-1.0)), Status::Value);
    assert_eq!(status(builder.method(FrequencyMethod::CountMin).learning_rate(0.5)), Status::Unsupported);
    let error = builder.buckets(8).build().unwrap().log_probability(&[1, 2], &mut [0.0]).unwrap_err();
    assert_eq!(error.to_string(), "log_probability has 1 elements, expected 2, one for each id");
}
