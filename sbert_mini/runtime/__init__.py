"""Text -> vectors without torch: ONNX graphs, the session that runs them, and the `Embedder`."""
