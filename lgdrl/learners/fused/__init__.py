"""The fused core: forward pass, gradients, Adam and target networks of multilayer perceptrons in compiled kernels."""
