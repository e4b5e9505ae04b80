//! Contact sheets of expert episodes, one PNG per family, to look at.
//!
//! `cargo run --release -p robomamba-sim --example gallery -- [DIR] [SIZE] [ZOOM]`

use std::{fs::File, io::BufWriter, path::Path};

use robomamba_sim::{
    Difficulty, ExpertRollout, Family, Intent, NoiseConfig, Scenario, SimError, Tabletop, expert_rollout,
};

const COLUMNS: usize = 8;
const ROWS: usize = 6;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| "gallery".into());
    let size = arguments.next().map_or(Ok(96), |text| text.parse())?;
    let zoom = arguments.next().map_or(Ok(1), |text| text.parse())?;
    std::fs::create_dir_all(&dir)?;
    for family in Family::ALL {
        let path = Path::new(&dir).join(format!("{family}.png"));
        write_sheet(family, size, zoom, &path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// One row per episode, its frames evenly spaced in time, every pixel `zoom` times as large.
fn write_sheet(family: Family, size: usize, zoom: usize, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut environment = Tabletop::new(size, size)?;
    let cell = size * zoom;
    let width = COLUMNS * cell;
    let mut sheet = vec![0; ROWS * cell * width * 3];
    for row in 0..ROWS {
        let frames = play(&mut environment, family, row as u64)?;
        for column in 0..COLUMNS {
            let frame = &frames[column * (frames.len() - 1) / (COLUMNS - 1)];
            for (y, x) in (0..cell).flat_map(|y| (0..cell).map(move |x| (y, x))) {
                let from = (y / zoom * size + x / zoom) * 3;
                let to = ((row * cell + y) * width + column * cell + x) * 3;
                sheet[to..to + 3].copy_from_slice(&frame[from..from + 3]);
            }
        }
    }
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width as u32, (ROWS * cell) as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&sheet)?;
    Ok(())
}

/// The pictures of an expert's episode.
fn play(environment: &mut Tabletop, family: Family, seed: u64) -> Result<Vec<Vec<u8>>, SimError> {
    let difficulty = Difficulty { tasks: 5, delay_steps: 30, ..Difficulty::default() };
    let scenario = Scenario::heldout(family, seed).with_difficulty(difficulty);
    let rollout = ExpertRollout { scenario, noise: NoiseConfig::NONE, intent: Intent::Solve };
    let mut frames = Vec::new();
    let result = expert_rollout(environment, &rollout, |frame| {
        frames.push(frame.observation.images[0].1.data().to_vec());
    })?;
    println!("  {} [{} steps, {:?}]", result.episode.instruction, result.steps, result.outcome);
    Ok(frames)
}
