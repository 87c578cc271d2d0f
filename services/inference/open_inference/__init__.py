"""The Open Inference Protocol v2, over HTTP (`protocol`, `tensors`) and gRPC (`rpc`, `messages`): of a project's models in the
gateway, and of files (`repository`) in `penstock serve` (`serve`). Requests of one turn go to a model together (`batching`)."""
