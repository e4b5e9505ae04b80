//! Runs a RoboMamba checkpoint on the CPU, one control step at a time.
