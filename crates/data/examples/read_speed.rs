//! How fast a data set is read on this machine: `cargo run --release -p robomamba-data --example read_speed --
//! DATASET`.

use std::error::Error;
use std::time::{Duration, Instant};

use robomamba_data::{Camera, Dataset, Episode, decode_png, encode_png};

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args().nth(1).ok_or("usage: read_speed DATASET")?;
    let (dataset, time) = timed(|| Dataset::open(&root))?;
    println!("open           {time:>10.2?}  {} episodes, {} frames", dataset.len(), dataset.frames());
    let (episodes, time) = timed(|| dataset.load())?;
    println!(
        "load           {time:>10.2?}  {:.0} frames/s, images encoded",
        dataset.frames() as f64 / time.as_secs_f64()
    );
    let cameras: Vec<&Camera> = episodes.iter().flat_map(Episode::cameras).collect();
    let (images, time) = timed(|| cameras.iter().map(|camera| decode(camera)).sum::<robomamba_data::Result<usize>>())?;
    println!("decode         {:>10.2?}  per image, one thread, {images} images in order", per(time, images));
    let singly = cameras.iter().map(|camera| camera.len().min(20)).sum();
    let (_, time) = timed(|| {
        cameras.iter().try_for_each(|camera| (0..camera.len().min(20)).try_for_each(|i| camera.decode(i).map(drop)))
    })?;
    println!("decode singly  {:>10.2?}  per image, one thread, {singly} images", per(time, singly));
    png(cameras.first().ok_or("there is no camera")?)
}

fn decode(camera: &Camera) -> robomamba_data::Result<usize> {
    camera.images().map(|image| image.map(|_| 1)).sum()
}

/// Encodes and decodes the first frame again and again.
fn png(camera: &Camera) -> Result<(), Box<dyn Error>> {
    const ROUNDS: usize = 500;
    let image = camera.decode(0)?;
    let bytes = encode_png(&image, "frame 0")?;
    let (_, time) = timed(|| (0..ROUNDS).try_for_each(|_| encode_png(&image, "frame 0").map(drop)))?;
    println!(
        "encode as PNG  {:>10.2?}  per image of {}x{}, {} bytes",
        per(time, ROUNDS),
        image.height(),
        image.width(),
        bytes.len()
    );
    let (_, time) = timed(|| (0..ROUNDS).try_for_each(|_| decode_png(&bytes, "frame 0").map(drop)))?;
    println!("decode that    {:>10.2?}  per image", per(time, ROUNDS));
    Ok(())
}

fn per(time: Duration, count: usize) -> Duration {
    time / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let start = Instant::now();
    let value = work()?;
    Ok((value, start.elapsed()))
}
