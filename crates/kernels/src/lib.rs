//! CPU kernels of RoboMamba: selective scan, convolution, norms, attention and matrix products.
