"""Programs as ONNX models. What ONNX and its runtimes promise differs from place to place: each choice says why."""
