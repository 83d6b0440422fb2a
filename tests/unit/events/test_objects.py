"""Notifications of object stores, as their documentations show them, become bucket writes."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import BucketWrite, Change, InvalidEvent, objects

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
S3: dict[str, Any] = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-west-2",
            "eventTime": "1970-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
            "requestParameters": {"sourceIPAddress": "172.16.0.1"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "testConfigRule",
                "bucket": {
                    "name": "amzn-s3-demo-bucket",
                    "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                    "arn": "arn:aws:s3:::amzn-s3-demo-bucket",
                },
                "object": {
                    "key": "red+flowers/H%C3%A4user%2B1.jpg",
                    "size": 1024,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        }
    ]
}

# https://min.io/docs/minio/linux/administration/monitoring/publish-events-to-webhook.html
MINIO: dict[str, Any] = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "images/photo 1.jpg",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": "2021-05-26T16:33:31.000Z",
            "eventName": "s3:ObjectCreated:Put",
            "userIdentity": {"principalId": "minio"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {
                    "name": "images",
                    "ownerIdentity": {"principalId": "minio"},
                    "arn": "arn:aws:s3:::images",
                },
                "object": {
                    "key": "photo+1.jpg",
                    "size": 84452,
                    "eTag": "ed9b3b1c5e6d2fe4ae8f5d0f7a2a2c1c",
                    "contentType": "image/jpeg",
                    "sequencer": "1682A7F1B3A40B5F",
                },
            },
        }
    ],
}

# https://cloud.google.com/storage/docs/pubsub-notifications and https://cloud.google.com/pubsub/docs/push
PUBSUB: dict[str, Any] = {
    "message": {
        "attributes": {
            "bucketId": "my_bucket",
            "eventTime": "2026-03-04T05:06:07.000000Z",
            "eventType": "OBJECT_FINALIZE",
            "notificationConfig": "projects/_/buckets/my_bucket/notificationConfigs/1",
            "objectGeneration": "1587627537231057",
            "objectId": "2026/photo+1 ä.jpg",
            "payloadFormat": "JSON_API_V1",
        },
        "data": "eyJraW5kIjogInN0b3JhZ2Ujb2JqZWN0In0=",
        "messageId": "2070443601311540",
        "publishTime": "2026-03-04T05:06:08.000000Z",
    },
    "subscription": "projects/myproject/subscriptions/mysubscription",
}

# https://cloud.google.com/storage/docs/json_api/v1/objects#resource
DESCRIPTION: dict[str, Any] = {
    "kind": "storage#object",
    "id": "my_bucket/photo.jpg/1587627537231057",
    "name": "photo.jpg",
    "bucket": "my_bucket",
    "generation": "1587627537231057",
    "metageneration": "1",
    "contentType": "image/jpeg",
    "timeCreated": "2026-03-04T05:06:07.231Z",
}

# https://github.com/googleapis/google-cloudevents/blob/main/testdata/google/events/cloud/storage/v1
CLOUD_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "google.cloud.storage.object.v1.finalized",
    "source": "//storage.googleapis.com/projects/_/buckets/my_bucket",
    "subject": "objects/photo.jpg",
    "id": "1096434104173400",
    "time": "2026-03-04T05:06:07Z",
    "datacontenttype": "application/json",
    "data": DESCRIPTION,
}


def decoded(body: object) -> list[tuple[str, str, Change]]:
    """Give what a body tells, as bucket, object and change."""
    return [(write.bucket, write.object, write.change) for write in objects.decode(body, app="shop")]


def altered(body: Any, *path: str | int, value: object) -> Any:
    """Give a copy of a body with another value somewhere."""
    other = copy.deepcopy(body)
    *way, last = path
    place = other
    for step in way:
        place = place[step]
    place[last] = value
    return other


def named(name: str) -> Any:
    """Give the documented record of S3 under another event's name."""
    return altered(S3, "Records", 0, "eventName", value=name)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (S3, ("amzn-s3-demo-bucket", "red flowers/Häuser+1.jpg", Change.CREATED)),
        (MINIO, ("images", "photo 1.jpg", Change.CREATED)),
        (PUBSUB, ("my_bucket", "2026/photo+1 ä.jpg", Change.CREATED)),
        (DESCRIPTION, ("my_bucket", "photo.jpg", Change.CREATED)),
        (CLOUD_EVENT, ("my_bucket", "photo.jpg", Change.CREATED)),
        (
            {"Type": "Notification", "Message": json.dumps(S3)},
            ("amzn-s3-demo-bucket", "red flowers/Häuser+1.jpg", Change.CREATED),
        ),
    ],
    ids=["s3", "minio", "pubsub", "description", "cloud-event", "sns"],
)
def test_documented_example_is_a_bucket_write(body: Any, told: tuple[str, str, Change]) -> None:
    """Of the app that was named; keys of S3 and MinIO are decoded, names of Google are plain."""
    (write,) = objects.decode(body, app="shop")
    assert isinstance(write, BucketWrite)
    assert (write.app, (write.bucket, write.object, write.change)) == ("shop", told)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ObjectCreated:CompleteMultipartUpload", Change.CREATED),
        ("s3:ObjectCreated:Copy", Change.CREATED),
        ("ObjectRemoved:Delete", Change.DELETED),
        ("s3:ObjectRemoved:DeleteMarkerCreated", Change.DELETED),
        ("LifecycleExpiration:Delete", Change.DELETED),
        ("ObjectTagging:Put", Change.UPDATED),
        ("ObjectAcl:Put", Change.ACL_MODIFIED),
        ("s3:ObjectCreated:PutRetention", Change.UPDATED),
        ("s3:ObjectCreated:PutLegalHold", Change.UPDATED),
        ("s3:ObjectAccessed:Get", None),
        ("s3:BucketCreated", None),
        ("Replication:OperationFailedReplication", None),
        ("ObjectRestore:Completed", None),
        ("SomethingNew:Put", None),
    ],
)
def test_kinds_of_s3(name: str, change: Change | None) -> None:
    """What changes an object is told, all else is not."""
    assert [found for _, _, found in decoded(named(name))] == ([] if change is None else [change])


@pytest.mark.parametrize(
    ("attributes", "change"),
    [
        ({"eventType": "OBJECT_FINALIZE", "overwroteGeneration": "7"}, Change.BODY_UPDATED),
        ({"eventType": "OBJECT_METADATA_UPDATE"}, Change.UPDATED),
        ({"eventType": "OBJECT_DELETE"}, Change.DELETED),
        ({"eventType": "OBJECT_ARCHIVE"}, Change.DELETED),
        ({"eventType": "OBJECT_DELETE", "overwrittenByGeneration": "8"}, None),
        ({"eventType": "OBJECT_ARCHIVE", "overwrittenByGeneration": "8"}, None),
        ({"eventType": "OBJECT_SOMETHING"}, None),
    ],
)
def test_kinds_of_google(attributes: dict[str, str], change: Change | None) -> None:
    """Overwriting is one change, though Google tells of two generations."""
    body = altered(PUBSUB, "message", "attributes", value={**PUBSUB["message"]["attributes"], **attributes})
    assert [found for _, _, found in decoded(body)] == ([] if change is None else [change])


def test_direct_forms_of_google_tell_their_kind() -> None:
    """By the type of the CloudEvent, or by what the description shows."""
    for kind, change in (
        ("deleted", Change.DELETED),
        ("archived", Change.DELETED),
        ("metadataUpdated", Change.UPDATED),
    ):
        body = altered(CLOUD_EVENT, "type", value=f"google.cloud.storage.object.v1.{kind}")
        assert [found for _, _, found in decoded(body)] == [change]
    assert decoded(altered(CLOUD_EVENT, "type", value="google.cloud.storage.object.v1.later")) == []
    assert decoded(altered(DESCRIPTION, "metageneration", value="2"))[0][2] is Change.UPDATED
    assert decoded(DESCRIPTION | {"timeDeleted": "2026-03-05T00:00:00Z"})[0][2] is Change.DELETED


def test_several_records_are_several_writes() -> None:
    """In their order."""
    body = {"Records": [*S3["Records"], *MINIO["Records"], *named("ObjectRemoved:Delete")["Records"]]}
    assert [(bucket, change) for bucket, _, change in decoded(body)] == [
        ("amzn-s3-demo-bucket", Change.CREATED),
        ("images", Change.CREATED),
        ("amzn-s3-demo-bucket", Change.DELETED),
    ]


@pytest.mark.parametrize(
    "body",
    [
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": "2014-10-13T15:57:02.089Z",
            "Bucket": "amzn-s3-demo-bucket",
            "RequestId": "5582815E1AEA5ADF",
            "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
        },
        {"Type": "Notification", "Message": json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})},
        {"Records": []},
    ],
)
def test_test_events_say_nothing(body: Any) -> None:
    """A store that is being set up asks whether anybody listens."""
    assert objects.decode(body, app="shop") == []


@pytest.mark.parametrize("body", [S3, MINIO, PUBSUB, DESCRIPTION, CLOUD_EVENT])
def test_repeated_notification_is_the_same_event(body: Any) -> None:
    """Stores deliver at least once; Pub/Sub may even give another message id."""
    again = copy.deepcopy(body)
    if again is not None and "message" in again:
        again["message"]["messageId"] = "another"
    assert objects.decode(body, app="shop") == objects.decode(again, app="shop")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (S3, named("ObjectRemoved:Delete")),
        (S3, altered(S3, "Records", 0, "s3", "object", "sequencer", value="0055AED6DCD90281E6")),
        (S3, altered(S3, "Records", 0, "s3", "object", "key", value="other")),
        (PUBSUB, altered(PUBSUB, "message", "attributes", "objectGeneration", value="2")),
        (DESCRIPTION, DESCRIPTION | {"metageneration": "2"}),
        (
            altered(CLOUD_EVENT, "type", value="google.cloud.storage.object.v1.metadataUpdated"),
            altered(CLOUD_EVENT, "type", value="google.cloud.storage.object.v1.deleted"),
        ),
    ],
)
def test_another_change_is_another_event(first: Any, second: Any) -> None:
    """The next write of the same object is no repetition."""
    (one,), (other,) = objects.decode(first, app="shop"), objects.decode(second, app="shop")
    assert one.id != other.id


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "body"),
        (None, "body"),
        ({"Records": "x"}, "body"),
        ({"Records": [{}]}, "Records.0"),
        ({"Records": [S3["Records"][0], 7]}, "Records.1"),
        ({"message": {"data": ""}}, "message.attributes"),
        ({"type": "google.cloud.storage.object.v1.finalized", "data": None}, "data"),
        ({"Type": "Notification", "Message": "{"}, "body"),
        (altered(S3, "Records", 0, "s3", "object", "key", value="a" * 256), "Records.0.object"),
        (altered(S3, "Records", 0, "s3", "bucket", "name", value="no name"), "Records.0.bucket"),
        (altered(PUBSUB, "message", "attributes", "objectId", value=7), "message.attributes.object"),
    ],
)
def test_what_cannot_be_an_event_is_named(body: Any, path: str) -> None:
    """By its place, so that the sender's settings can be mended."""
    with pytest.raises(InvalidEvent) as caught:
        objects.decode(body, app="shop")
    assert [problem.path for problem in caught.value.problems] == [path]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Records",
                    "s3",
                    "bucket",
                    "object",
                    "key",
                    "name",
                    "eventName",
                    "message",
                    "attributes",
                    "type",
                    "kind",
                    "data",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_body_is_read_or_refused(body: Any) -> None:
    """Whatever a stranger sends: events or `InvalidEvent`, nothing else."""
    with contextlib.suppress(InvalidEvent):
        assert all(isinstance(write, BucketWrite) for write in objects.decode(body, app="shop"))
