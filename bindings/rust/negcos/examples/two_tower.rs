// SPDX-License-Identifier: Apache-2.0
//
// Two towers, each a table of token embeddings: a text is the mean of its tokens' rows. Queries and documents share no
// word, as if they were in two languages; what they are about is all that they have in common, and has to be learnt.
use negcos::{Batch, Context, Direction, Error, Matrix, MatrixMut, Options, Outputs, Sampling};

const TOPICS: usize = 200;
const WORDS_PER_TOPIC: usize = 3;
const TOKENS: usize = TOPICS * WORDS_PER_TOPIC; // of each language
const DOCUMENT_LENGTH: usize = 5;
const QUERY_LENGTH: usize = 3;
const TRAINING_PAIRS: usize = 4096;
const HELD_OUT_PAIRS: usize = 1000;
const DIM: usize = 32;
const BATCH: usize = 256;
const EPOCHS: usize = 10;
const LEARNING_RATE: f32 = 0.1;

/// A multiplicative congruential generator: made-up data need no better.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % count
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

struct Pair {
    query: Vec<usize>,
    document: Vec<usize>,
}

/// A document is about some topics, and its query about a part of them; each language has several words for a topic.
fn made_up_pair(random: &mut Random) -> Pair {
    let mut topics: Vec<usize> = (0..DOCUMENT_LENGTH).map(|_| random.below(TOPICS)).collect();
    let mut words =
        |topics: &[usize]| topics.iter().map(|topic| topic * WORDS_PER_TOPIC + random.below(WORDS_PER_TOPIC)).collect();
    let document = words(&topics);
    topics.truncate(QUERY_LENGTH);
    Pair { query: words(&topics), document }
}

/// A table of embeddings, trained by Adagrad.
struct Tower {
    table: Vec<f32>,
    squares: Vec<f32>,
}

impl Tower {
    fn new(random: &mut Random) -> Self {
        let table = (0..TOKENS * DIM).map(|_| random.below(2001) as f32 / 10000.0 - 0.1).collect();
        Tower { table, squares: vec![1e-6; TOKENS * DIM] }
    }

    fn embed(&self, texts: &[&[usize]], rows: &mut [f32]) {
        rows.fill(0.0);
        for (text, row) in texts.iter().zip(rows.chunks_exact_mut(DIM)) {
            for token in *text {
                for (sum, value) in row.iter_mut().zip(&self.table[token * DIM..]) {
                    *sum += value / text.len() as f32;
                }
            }
        }
    }

    fn learn(&mut self, texts: &[&[usize]], gradient: &[f32]) {
        for (text, slope) in texts.iter().zip(gradient.chunks_exact(DIM)) {
            for token in *text {
                for (j, slope) in slope.iter().enumerate() {
                    let slope = slope / text.len() as f32;
                    let square = &mut self.squares[token * DIM + j];
                    *square += slope * slope;
                    self.table[token * DIM + j] -= LEARNING_RATE * slope / square.sqrt();
                }
            }
        }
    }
}

/// The share of queries whose document is among the ten most similar.
fn recall_at_10(query_tower: &Tower, document_tower: &Tower, pairs: &[Pair]) -> f64 {
    let embed = |tower: &Tower, texts: Vec<&[usize]>| {
        let mut rows = vec![0.0; texts.len() * DIM];
        tower.embed(&texts, &mut rows);
        for row in rows.chunks_exact_mut(DIM) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        rows
    };
    let queries = embed(query_tower, pairs.iter().map(|pair| &pair.query[..]).collect());
    let documents = embed(document_tower, pairs.iter().map(|pair| &pair.document[..]).collect());
    let mut found = 0;
    for (i, query) in queries.chunks_exact(DIM).enumerate() {
        let scores: Vec<f32> =
            documents.chunks_exact(DIM).map(|row| row.iter().zip(query).map(|(x, y)| x * y).sum()).collect();
        found += usize::from(scores.iter().filter(|&&score| score > scores[i]).count() < 10);
    }
    found as f64 / pairs.len() as f64
}

/// Trains, and gives Recall@10 on pairs that were held out, before and after.
pub fn train() -> Result<(f64, f64), Error> {
    let mut random = Random(1);
    let mut training: Vec<Pair> = (0..TRAINING_PAIRS).map(|_| made_up_pair(&mut random)).collect();
    let held_out: Vec<Pair> = (0..HELD_OUT_PAIRS).map(|_| made_up_pair(&mut random)).collect();
    let (mut query_tower, mut document_tower) = (Tower::new(&mut random), Tower::new(&mut random));
    let before = recall_at_10(&query_tower, &document_tower, &held_out);

    let mut context = Context::new()?;
    let options = Options::new().sampling(Sampling::All).direction(Direction::Both);
    let mut queries = vec![0.0; BATCH * DIM];
    let mut documents = vec![0.0; BATCH * DIM];
    let mut grad_queries = vec![0.0; BATCH * DIM];
    let mut grad_documents = vec![0.0; BATCH * DIM];
    for _ in 0..EPOCHS {
        random.shuffle(&mut training);
        for pairs in training.chunks_exact(BATCH) {
            let query_texts: Vec<&[usize]> = pairs.iter().map(|pair| &pair.query[..]).collect();
            let document_texts: Vec<&[usize]> = pairs.iter().map(|pair| &pair.document[..]).collect();
            query_tower.embed(&query_texts, &mut queries);
            document_tower.embed(&document_texts, &mut documents);
            let batch = Batch::new(Matrix::new(&queries, BATCH, DIM)?, Matrix::new(&documents, BATCH, DIM)?);
            let outputs = Outputs::new()
                .grad_queries(MatrixMut::new(&mut grad_queries, BATCH, DIM)?)
                .grad_documents(MatrixMut::new(&mut grad_documents, BATCH, DIM)?);
            context.evaluate(&options, &batch, outputs)?;
            query_tower.learn(&query_texts, &grad_queries);
            document_tower.learn(&document_texts, &grad_documents);
        }
    }
    Ok((before, recall_at_10(&query_tower, &document_tower, &held_out)))
}

fn main() -> Result<(), Error> {
    let (before, after) = train()?;
    println!("Recall@10 on {HELD_OUT_PAIRS} held-out pairs: {before:.3} before, {after:.3} after");
    Ok(())
}
