"""What is timed: layers, kernels and whole models beside their competitors, on CPUs and GPUs."""
