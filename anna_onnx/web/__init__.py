"""The built page, made from ``web/`` by ``npm run build``; `anna_onnx.page` fills it with a model."""
