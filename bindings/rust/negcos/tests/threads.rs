// SPDX-License-Identifier: Apache-2.0
mod common;

use common::pattern;
use negcos::*;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

const BATCH: usize = 600;
const DIM: usize = 64;

struct Data {
    queries: Vec<f32>,
    documents: Vec<f32>,
}

impl Data {
    fn new() -> Self {
        Data { queries: pattern(BATCH, DIM, DIM, 7), documents: pattern(BATCH, DIM, DIM, 14) }
    }

    /// The loss and gradient as bits.
    fn evaluate(&self, context: &mut Context, gradient: &mut [f32]) -> Result<Evaluation, Error> {
        let batch = Batch::new(
            Matrix::new(&self.queries, BATCH, DIM).unwrap(),
            Matrix::new(&self.documents, BATCH, DIM).unwrap(),
        );
        let outputs = Outputs::new().grad_queries(MatrixMut::new(gradient, BATCH, DIM).unwrap());
        context.evaluate(&Options::new().sampling(Sampling::All), &batch, outputs)
    }
}

#[test]
fn what_can_be_sent_and_shared() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Context>();
    send::<ContextBuilder>();
    send::<Frequency>();
    sync::<Frequency>();
    send::<Error>();
    sync::<Error>();
    send::<Options<'_>>();
    sync::<Options<'_>>();
    send::<Batch<'_, f32>>();
    send::<Outputs<'_, f32>>();
    sync::<Tasks>();
}

#[test]
fn several_threads_with_a_context_each_get_the_same_bits() {
    let data = Data::new();
    let mut expected = vec![0.0; BATCH * DIM];
    let evaluation = data.evaluate(&mut Context::new().unwrap(), &mut expected).unwrap();
    std::thread::scope(|scope| {
        for threads in [1, 1, 2, 3] {
            let mut context = Context::builder().threads(threads).build().unwrap();
            let (data, expected) = (&data, &expected);
            scope.spawn(move || {
                for _ in 0..3 {
                    let mut gradient = vec![0.0; BATCH * DIM];
                    assert_eq!(data.evaluate(&mut context, &mut gradient).unwrap(), evaluation);
                    assert_eq!(&gradient, expected);
                }
            });
        }
    });
}

#[test]
fn the_callers_threads() {
    let data = Data::new();
    let mut expected = vec![0.0; BATCH * DIM];
    data.evaluate(&mut Context::builder().threading(Threading::Serial).build().unwrap(), &mut expected).unwrap();

    let called = Arc::new(AtomicUsize::new(0));
    let run_by = |closure: fn(&Tasks)| {
        let called = Arc::clone(&called);
        let builder = Context::builder().threading(Threading::Serial).threads(4);
        builder.parallel_for(move |tasks| {
            called.fetch_add(1, Ordering::Relaxed);
            closure(tasks);
        })
    };
    let closures: [fn(&Tasks); 4] = [
        |_| (), // the calling thread does what is left
        |tasks| {
            tasks.run();
            tasks.run();
        },
        |tasks| {
            std::thread::scope(|scope| {
                (0..tasks.count()).for_each(|_| drop(scope.spawn(|| tasks.run())));
            })
        },
        |tasks| {
            std::thread::scope(|scope| {
                (0..3 * tasks.count()).for_each(|_| drop(scope.spawn(|| tasks.run())));
            })
        },
    ];
    for closure in closures {
        called.store(0, Ordering::Relaxed);
        let mut context = run_by(closure).build().unwrap();
        assert_eq!(context.threads(), 4);
        let mut gradient = vec![0.0; BATCH * DIM];
        data.evaluate(&mut context, &mut gradient).unwrap();
        assert_eq!(gradient, expected);
        assert!(called.load(Ordering::Relaxed) > 0, "the closure was not called");
    }

    // The later of the two says who runs the tasks.
    called.store(0, Ordering::Relaxed);
    let mut context = run_by(|tasks| tasks.run()).threading(Threading::Serial).build().unwrap();
    data.evaluate(&mut context, &mut vec![0.0; BATCH * DIM]).unwrap();
    assert_eq!((called.load(Ordering::Relaxed), context.threads()), (0, 1));
}

#[test]
fn a_panic_goes_on_in_the_caller() {
    let data = Data::new();
    let broken = Arc::new(AtomicBool::new(true));
    let mut context = {
        let broken = Arc::clone(&broken);
        Context::builder()
            .threads(2)
            .parallel_for(move |tasks| {
                std::thread::scope(|scope| {
                    scope.spawn(|| tasks.run());
                    if broken.load(Ordering::Relaxed) {
                        panic!("out of threads");
                    }
                })
            })
            .build()
            .unwrap()
    };
    let mut gradient = vec![-7.0; BATCH * DIM];
    let payload = catch_unwind(AssertUnwindSafe(|| data.evaluate(&mut context, &mut gradient))).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"out of threads"));
    assert!(gradient.iter().all(|&value| value == -7.0), "an output was written");

    // The context is as good as new.
    broken.store(false, Ordering::Relaxed);
    let mut expected = vec![0.0; BATCH * DIM];
    data.evaluate(&mut Context::new().unwrap(), &mut expected).unwrap();
    data.evaluate(&mut context, &mut gradient).unwrap();
    assert_eq!(gradient, expected);
}

#[test]
fn the_closure_lives_as_long_as_its_context() {
    let kept = Arc::new(());
    let context = {
        let kept = Arc::clone(&kept);
        Context::builder()
            .parallel_for(move |tasks| {
                let _ = &kept;
                tasks.run()
            })
            .build()
            .unwrap()
    };
    assert_eq!(Arc::strong_count(&kept), 2);
    drop(context);
    assert_eq!(Arc::strong_count(&kept), 1);
}
