"""The only place that imports torch and onnx: training, testing and exporting a network."""
