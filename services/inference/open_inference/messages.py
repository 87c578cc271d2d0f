"""The messages of the Open Inference Protocol v2 over gRPC, with Triton's repository and statistics extensions.

Written as a table of fields in the order of their numbers, from which protobuf makes the classes: no code is generated, so none
has to be kept in step with the protobuf that is installed. They live in a pool of their own, beside any other copy of the
protocol in the process. A test compares every field with those of `tritonclient`.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["CALLS", "MESSAGES", "SERVICE"]

SERVICE: Final = "inference.GRPCInferenceService"

_FIELDS: Final = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": "name:string version:string",
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:string*",
    "ModelMetadataRequest": "name:string version:string",
    "TensorMetadata": "name:string datatype:string shape:int64*",
    "ModelMetadataResponse": "name:string versions:string* platform:string inputs:TensorMetadata* outputs:TensorMetadata*",
    "InferParameter": "bool_param:bool int64_param:int64 string_param:string double_param:double uint64_param:uint64",
    "Parameter": "key:string value:InferParameter",
    "InferTensorContents": "bool_contents:bool* int_contents:int32* int64_contents:int64* uint_contents:uint32* "
    "uint64_contents:uint64* fp32_contents:float* fp64_contents:double* bytes_contents:bytes*",
    "InferTensor": "name:string datatype:string shape:int64* parameters:Parameter* contents:InferTensorContents",
    "RequestedOutput": "name:string parameters:Parameter*",
    "ModelInferRequest": "model_name:string model_version:string id:string parameters:Parameter* inputs:InferTensor* "
    "outputs:RequestedOutput* raw_input_contents:bytes*",
    "ModelInferResponse": "model_name:string model_version:string id:string parameters:Parameter* outputs:InferTensor* "
    "raw_output_contents:bytes*",
    "RepositoryIndexRequest": "repository_name:string ready:bool",
    "ModelIndex": "name:string version:string state:string reason:string",
    "RepositoryIndexResponse": "models:ModelIndex*",
    "RepositoryModelLoadRequest": "repository_name:string model_name:string parameters:Parameter*",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name:string model_name:string parameters:Parameter*",
    "RepositoryModelUnloadResponse": "",
    "ModelStatisticsRequest": "name:string version:string",
    "StatisticDuration": "count:uint64 ns:uint64",
    "InferStatistics": "success:StatisticDuration fail:StatisticDuration queue:StatisticDuration compute_input:StatisticDuration "
    "compute_infer:StatisticDuration compute_output:StatisticDuration cache_hit:StatisticDuration cache_miss:StatisticDuration",
    "ModelStatistics": "name:string version:string last_inference:uint64 inference_count:uint64 execution_count:uint64 "
    "inference_stats:InferStatistics",
    "ModelStatisticsResponse": "model_stats:ModelStatistics*",
}
"""`*`: repeated. A map of parameters is on the wire a repeated Parameter; messages inside others have names of their own here."""


def _made() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="penstock/open_inference.proto", package="inference", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name == "InferParameter":
            message.oneof_decl.add(name="parameter_choice")
        for number, word in enumerate(fields.split(), 1):
            field, _, of = word.partition(":")
            of, repeated = of.removesuffix("*"), of.endswith("*")
            made = message.field.add(name=field, number=number, label=kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL)
            if of in _FIELDS:
                made.type, made.type_name = kind.TYPE_MESSAGE, f".inference.{of}"
            else:
                made.type = kind.Type.Value(f"TYPE_{of.upper()}")
            if name == "InferParameter":
                made.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _FIELDS}


MESSAGES: Final = _made()
CALLS: Final = {
    name.removesuffix("Request"): (MESSAGES[name], MESSAGES[f"{name.removesuffix('Request')}Response"])
    for name in _FIELDS
    if name.endswith("Request")
}
"""Call -> classes of its request and its response."""
