"""Export programs as ONNX models. ONNX and its runtimes differ in what they support: comments give the reason for each choice."""
