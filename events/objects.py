"""Notifications of object stores as bucket writes: Amazon S3, MinIO and Google Cloud Storage.

The form is recognised by the body alone:

1. S3 and MinIO: `{"Records": [...]}`, by itself or as the text in the envelope of Amazon SNS.
2. Google, Pub/Sub push: `{"message": {"attributes": {"eventType": ...}}}`.
3. Google, directly: a CloudEvent of the type `google.cloud.storage.object.v1.*`, or the object's own description,
   `{"kind": "storage#object"}`.

A store's bucket is the bucket, its key or object name the object. Stores repeat notifications, so the event's id is
made of what they say of one change. What changes no object (tests, reads, replication, restoring) gives no event.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from .event import BucketWrite, Change
from .validation import InvalidEvent, Problems

__all__ = ["decode"]

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html
# MinIO says the same with "s3:" in front, and counts some changes of metadata as creations:
# https://min.io/docs/minio/linux/administration/monitoring/bucket-notifications.html
_S3_CHANGES: Final[Mapping[str, Change]] = {
    "ObjectCreated": Change.CREATED,
    "ObjectRemoved": Change.DELETED,
    "LifecycleExpiration": Change.DELETED,
    "ObjectTagging": Change.UPDATED,
    "ObjectAcl": Change.ACL_MODIFIED,
}
_MINIO_METADATA: Final = ("PutRetention", "PutLegalHold", "PutTagging", "DeleteTagging")
# https://cloud.google.com/storage/docs/pubsub-notifications#events
_GOOGLE_CHANGES: Final[Mapping[str, Change]] = {
    "OBJECT_FINALIZE": Change.CREATED,
    "OBJECT_METADATA_UPDATE": Change.UPDATED,
    "OBJECT_DELETE": Change.DELETED,
    "OBJECT_ARCHIVE": Change.DELETED,
}
# https://cloud.google.com/eventarc/docs/reference/supported-events#cloud-storage
_CLOUD_EVENT: Final = "google.cloud.storage.object.v1."
_CLOUD_EVENTS: Final[Mapping[str, str]] = {
    "finalized": "OBJECT_FINALIZE",
    "metadataUpdated": "OBJECT_METADATA_UPDATE",
    "deleted": "OBJECT_DELETE",
    "archived": "OBJECT_ARCHIVE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """One change, as its store told it. `path` is where in the body; `marks` tell it from every other change."""

    path: str
    bucket: Any
    object: Any
    change: Change
    marks: tuple[Any, ...]


def decode(body: object, *, app: str) -> list[BucketWrite]:
    """Read one notification, as `json.loads` returns its body; nothing in it to tell means no events.

    Raises `InvalidEvent` that names every problem by its place in the body: a form that is not known, an object's name
    that no event can hold (more than 255 characters, control characters).
    """
    problems = Problems()
    written = _read(_unwrapped(body), problems)
    writes = [_build(one, app, problems) for one in written]
    problems.raise_if_any()
    return [write for write in writes if write is not None]


def _unwrapped(body: Any) -> Any:
    """Take the notification out of the envelope of Amazon SNS."""
    match body:
        case {"Type": "Notification", "Message": str(text)}:
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                return None
    return body


def _read(body: Any, problems: Problems) -> list[_Written]:
    match body:
        case {"Records": list() as records}:
            return _read_s3(records, problems)
        case {"Event": "s3:TestEvent"}:
            return []
        case {"message": Mapping() as message}:
            return _read_pubsub(message, problems)
        case {"type": str(kind)} if kind.startswith(_CLOUD_EVENT):
            return _read_cloud_event(body, problems)
        case {"kind": "storage#object"}:
            return _read_description(body, "", _guess(body), {})
    problems.add("body", "format", "is no notification of S3, MinIO or Google Cloud Storage that is known")
    return []


def _read_s3(records: Sequence[Any], problems: Problems) -> list[_Written]:
    found = []
    for index, record in enumerate(records):
        path = f"Records.{index}"
        match record:
            case {"eventName": str(name)} if _s3_change(name) is None:
                continue
            case {
                "eventName": str(name),
                "s3": {"bucket": {"name": bucket}, "object": {"key": str(key), **rest}},
            }:
                # Older stores give no sequencer; the time tells nearly as much.
                stamp = rest.get("sequencer") or record.get("eventTime")
                found.append(
                    _Written(
                        path=path,
                        bucket=bucket,
                        object=unquote_plus(key),  # encoded as in a form: a space is a plus
                        change=_s3_change(name) or Change.UPDATED,
                        marks=("s3", bucket, key, name, rest.get("versionId"), stamp),
                    )
                )
            case _:
                problems.add(path, "format", "must have eventName, s3.bucket.name and s3.object.key")
    return found


def _s3_change(name: str) -> Change | None:
    kind, _, how = name.removeprefix("s3:").partition(":")
    return Change.UPDATED if how in _MINIO_METADATA else _S3_CHANGES.get(kind)


def _read_pubsub(message: Mapping[str, Any], problems: Problems) -> list[_Written]:
    attributes: Any = message.get("attributes")
    match attributes:
        case {"eventType": str(kind), "bucketId": bucket, "objectId": name}:
            if kind not in _GOOGLE_CHANGES:
                return []
            description = {"bucket": bucket, "name": name, "generation": attributes.get("objectGeneration")}
            stamp = attributes.get("eventTime") or message.get("messageId")
            return _read_description(description, "message.attributes", kind, {**attributes, "stamp": stamp})
    problems.add("message.attributes", "format", "must have eventType, bucketId and objectId")
    return []


def _read_cloud_event(body: Mapping[str, Any], problems: Problems) -> list[_Written]:
    kind = _CLOUD_EVENTS.get(body["type"].removeprefix(_CLOUD_EVENT))
    description: Any = body.get("data")
    match description:
        case {"bucket": _, "name": _}:
            return (
                []
                if kind is None
                else _read_description(description, "data", kind, {"stamp": body.get("id")})
            )
    problems.add("data", "format", "must have bucket and name")
    return []


def _guess(description: Mapping[str, Any]) -> str:
    """Tell what happened to an object from its description: its first metadata are those of its making."""
    if description.get("timeDeleted") is not None:
        return "OBJECT_DELETE"
    return "OBJECT_FINALIZE" if str(description.get("metageneration")) == "1" else "OBJECT_METADATA_UPDATE"


def _read_description(
    description: Mapping[str, Any], path: str, kind: str, attributes: Mapping[str, Any]
) -> list[_Written]:
    change = _GOOGLE_CHANGES[kind]
    # Overwriting is told twice: of the new content, and of the old one that went. Once is enough.
    if change is Change.DELETED and attributes.get("overwrittenByGeneration"):
        return []
    if change is Change.CREATED and attributes.get("overwroteGeneration"):
        change = Change.BODY_UPDATED
    bucket, name = description.get("bucket"), description.get("name")
    marks = ("google", bucket, name, kind, description.get("generation"), description.get("metageneration"))
    # Metadata change often in one generation, and deleting has no number of its own.
    stamp = attributes.get("stamp") if kind != "OBJECT_FINALIZE" else None
    return [_Written(path=path, bucket=bucket, object=name, change=change, marks=(*marks, stamp))]


def _build(written: _Written, app: str, problems: Problems) -> BucketWrite | None:
    digest = hashlib.sha256(json.dumps(written.marks, default=str).encode()).hexdigest()
    try:
        return BucketWrite(
            app=app,
            id=f"object-{digest[:40]}",
            bucket=written.bucket,
            object=written.object,
            change=written.change,
        )
    except InvalidEvent as error:
        for problem in error.problems:
            problems.add(f"{written.path}.{problem.path}".lstrip("."), problem.code, problem.message)
        return None
