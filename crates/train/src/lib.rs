//! Trains RoboMamba policies on whole episodes with burn.
