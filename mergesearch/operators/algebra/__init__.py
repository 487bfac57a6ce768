"""What operators compute of whole tensors: Gram matrices, spectra, components, factors of adapters."""
