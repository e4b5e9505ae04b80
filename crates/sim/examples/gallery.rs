//! Contact sheets of expert episodes, one PNG per family, to look at.
//!
//! `cargo run --release -p robomamba-sim --example gallery -- [DIR] [SIZE]`

use std::{fs::File, io::BufWriter, path::Path};

use robomamba_sim::{Difficulty, ExpertRollout, Family, Intent, NoiseConfig, Scenario, Tabletop, expert_rollout};

const COLUMNS: usize = 8;
const ROWS: usize = 6;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| "gallery".into());
    let size = arguments.next().map_or(Ok(96), |text| text.parse())?;
    std::fs::create_dir_all(&dir)?;
    for family in Family::ALL {
        let path = Path::new(&dir).join(format!("{family}.png"));
        write_sheet(family, size, &path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// One row per episode, its frames evenly spaced in time.
fn write_sheet(family: Family, size: usize, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut environment = Tabletop::new(size, size)?;
    let row_bytes = COLUMNS * size * 3;
    let mut sheet = vec![0; ROWS * size * row_bytes];
    for row in 0..ROWS {
        let difficulty = Difficulty { tasks: 5, delay_steps: 30, ..Difficulty::default() };
        let scenario = Scenario::heldout(family, row as u64).with_difficulty(difficulty);
        let rollout = ExpertRollout { scenario, noise: NoiseConfig::NONE, intent: Intent::Solve };
        let mut frames = Vec::new();
        let result = expert_rollout(&mut environment, &rollout, |frame| {
            frames.push(frame.observation.images[0].1.data().to_vec());
        })?;
        println!("  {} [{} steps, {:?}]", result.instruction, result.steps, result.status);
        for column in 0..COLUMNS {
            let frame = &frames[column * (frames.len() - 1) / (COLUMNS - 1)];
            for (y, line) in frame.chunks_exact(size * 3).enumerate() {
                let start = (row * size + y) * row_bytes + column * size * 3;
                sheet[start..start + size * 3].copy_from_slice(line);
            }
        }
    }
    let mut encoder =
        png::Encoder::new(BufWriter::new(File::create(path)?), (COLUMNS * size) as u32, (ROWS * size) as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&sheet)?;
    Ok(())
}
