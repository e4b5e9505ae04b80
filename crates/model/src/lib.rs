//! Configuration, parameter names, checkpoint folders and input transforms of the RoboMamba model.
