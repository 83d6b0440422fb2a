"""What object stores send as JSON Schema, for the OpenAPI document.

The forms are read by `events.objects`; this tells them to people and generators.
"""

from __future__ import annotations

from typing import Any, Final

from .event_schema import LINE, Schema

# Keys of S3 arrive encoded as in a form; what they decode to is printable and not blank.
_KEY: Final = (
    r"^([^%\x00-\x1f\x7f-\x9f]|%[2-6][0-9A-Fa-f]|%7[0-9A-Ea-e])*[^\s%+\x00-\x1f\x7f-\x9f]"
    r"([^%\x00-\x1f\x7f-\x9f]|%[2-6][0-9A-Fa-f]|%7[0-9A-Ea-e])*$"
)
_S3_TOLD: Final = (
    r"^((s3:)?(ObjectCreated|ObjectRemoved|LifecycleExpiration|ObjectTagging|ObjectAcl)(:.*)?"
    r"|(s3:)?[^:]*:(PutRetention|PutLegalHold|PutTagging|DeleteTagging))$"
)
_GOOGLE_TOLD: Final = ["OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE", "OBJECT_DELETE", "OBJECT_ARCHIVE"]
_CLOUD: Final = r"^google\.cloud\.storage\.object\.v1\."
_CLOUD_TOLD: Final = f"{_CLOUD}(finalized|metadataUpdated|deleted|archived)$"
_BUCKET: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"}
_OBJECT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": LINE}
_ANY: Final[Schema] = {}


def _object(description: str = "", **members: Schema) -> Schema:
    """Describe an object that has these members, and any others beside them."""
    about = {"description": description} if description else {}
    return {"type": "object", **about, "required": list(members), "properties": members}


def _other_than(**told: Any) -> Schema:
    return {"type": "string", "not": told}


_RECORD: Final[Schema] = {
    "anyOf": [
        _object(
            eventName={"type": "string", "pattern": _S3_TOLD},
            s3=_object(
                bucket=_object(name=_BUCKET),
                object=_object(key={"type": "string", "minLength": 1, "maxLength": 255, "pattern": _KEY}),
            ),
        ),
        _object("Changes no object: gives no event.", eventName=_other_than(pattern=_S3_TOLD)),
    ]
}
_ATTRIBUTES: Final[Schema] = {
    "anyOf": [
        _object(eventType={"enum": _GOOGLE_TOLD}, bucketId=_BUCKET, objectId=_OBJECT),
        _object(
            "Changes no object: gives no event.",
            eventType=_other_than(enum=_GOOGLE_TOLD),
            bucketId=_ANY,
            objectId=_ANY,
        ),
    ]
}
NOTIFICATION: Final[Schema] = {
    "title": "Notification of a store",
    "anyOf": [
        _object("Amazon S3, MinIO", Records={"type": "array", "items": _RECORD}),
        _object("Amazon S3 tries whether it is heard", Event={"const": "s3:TestEvent"}),
        _object(
            "Amazon SNS: the form of S3 as a text",
            Type={"const": "Notification"},
            Message={"type": "string", "contentMediaType": "application/json"},
        ),
        {
            "type": "object",
            "description": "Amazon SNS asks to confirm a subscription, or says that it ended",
            "required": ["Type"],
            "properties": {
                "Type": {"enum": ["SubscriptionConfirmation", "UnsubscribeConfirmation"]},
                "SubscribeURL": {"description": "Logged for an operator, if it is one of SNS."},
            },
        },
        _object("Google, by Pub/Sub push", message=_object(attributes=_ATTRIBUTES)),
        _object(
            "Google, as a CloudEvent",
            type={"type": "string", "pattern": _CLOUD_TOLD},
            data=_object(bucket=_BUCKET, name=_OBJECT),
        ),
        _object(
            "Google, as a CloudEvent that changes no object",
            type={"type": "string", "pattern": _CLOUD, "not": {"pattern": _CLOUD_TOLD}},
            data=_object(bucket=_ANY, name=_ANY),
        ),
        _object(
            "Google, an object's description", kind={"const": "storage#object"}, bucket=_BUCKET, name=_OBJECT
        ),
    ],
}
REQUEST: Final[Schema] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": NOTIFICATION}}}
}
