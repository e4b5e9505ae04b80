//! Saved states: what was altered, cut or made for another model is refused with the reason.

mod common;

use robomamba_model::{BackboneConfig, MambaConfig};
use robomamba_runtime::{RuntimeError, State};

fn configs() -> [BackboneConfig; 3] {
    let mamba = BackboneConfig::Mamba(MambaConfig { d_state: 4, ..MambaConfig::new(16, 2) });
    let wider = BackboneConfig::Mamba(MambaConfig { d_state: 8, ..MambaConfig::new(16, 2) });
    let transformer = BackboneConfig::Transformer(mamba.to_transformer(5));
    [mamba, wider, transformer]
}

fn filled(config: &BackboneConfig) -> State {
    let mut state = State::zeros(config);
    if let State::Mamba(mamba) = &mut state {
        let values = common::noise(1, mamba.ssm().len());
        mamba.ssm_mut().copy_from_slice(&values);
    }
    state
}

#[test]
fn what_was_saved_is_restored() {
    for config in configs() {
        let state = filled(&config);
        assert_eq!(State::restore(&state.save(), &config).expect("it is whole"), state);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    for config in configs() {
        let saved = filled(&config).save();
        for byte in 0..saved.len() {
            let mut flipped = saved.clone();
            flipped[byte] ^= 1 << (byte % 8);
            assert!(matches!(State::restore(&flipped, &config), Err(RuntimeError::StateDamaged { .. })), "byte {byte}");
            assert!(
                matches!(State::restore(&saved[..byte], &config), Err(RuntimeError::StateDamaged { .. })),
                "cut at {byte}"
            );
        }
        let longer = [saved, vec![0]].concat();
        assert!(State::restore(&longer, &config).is_err());
    }
}

#[test]
fn a_state_of_another_model_is_refused_with_both_sizes() {
    let [mamba, wider, transformer] = configs();
    for (ours, theirs, part) in
        [(&mamba, &wider, "d_state 8"), (&mamba, &transformer, "context_len 5"), (&transformer, &mamba, "d_inner 32")]
    {
        let error = State::restore(&State::zeros(theirs).save(), ours).expect_err("another model");
        assert!(matches!(error, RuntimeError::StateShape { .. }) && error.to_string().contains(part), "{error}");
        assert!(State::zeros(ours).copy_from(&State::zeros(theirs)).is_err());
        assert!(State::zeros(ours).max_abs_diff(&State::zeros(theirs)).is_err());
    }
}

#[test]
fn differences_are_measured() {
    let config = &configs()[0];
    let (zeros, mut other) = (State::zeros(config), State::zeros(config));
    if let State::Mamba(mamba) = &mut other {
        mamba.ssm_mut()[3] = 3.0;
        mamba.conv_mut()[1] = -4.0;
    }
    assert_eq!(zeros.max_abs_diff(&other).expect("same model"), 4.0);
    assert_eq!(zeros.distance(&other).expect("same model"), 5.0);
    if let State::Mamba(mamba) = &mut other {
        mamba.ssm_mut()[0] = f32::NAN;
    }
    assert!(!other.is_finite());
}
