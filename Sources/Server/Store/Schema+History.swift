/// Tables of what can be taken back: mass changes and conflicts. Versions and trash are columns of the tree's own tables.
extension Schema {
    static let historyTables = [
        // What a device removed, rewrote or moved lately, each with its state before the first such change.
        """
        CREATE TABLE recent_changes (
            namespace BLOB NOT NULL, device BLOB NOT NULL, node BLOB NOT NULL, parent BLOB NOT NULL, name TEXT NOT NULL, version BLOB,
            kind TEXT NOT NULL, time BIGINT NOT NULL, PRIMARY KEY (namespace, device, node))
        """,
        "CREATE INDEX recent_changes_time ON recent_changes (time)",
        "CREATE INDEX recent_changes_version ON recent_changes (version)",
        """
        CREATE TABLE events (
            id BLOB PRIMARY KEY, namespace BLOB NOT NULL, account BLOB NOT NULL, device BLOB NOT NULL, device_name TEXT NOT NULL,
            folder BLOB NOT NULL, path TEXT NOT NULL, started BIGINT NOT NULL, last BIGINT NOT NULL, undone_at BIGINT)
        """,
        "CREATE INDEX events_namespace ON events (namespace, last)",
        """
        CREATE TABLE event_changes (
            event BLOB NOT NULL, node BLOB NOT NULL, parent BLOB NOT NULL, name TEXT NOT NULL, version BLOB, kind TEXT NOT NULL,
            PRIMARY KEY (event, node))
        """,
        "CREATE INDEX event_changes_node ON event_changes (node)",
        "CREATE INDEX event_changes_version ON event_changes (version)",
        """
        CREATE TABLE conflicts (
            id BLOB PRIMARY KEY, namespace BLOB NOT NULL, node BLOB NOT NULL, copy BLOB NOT NULL, device BLOB NOT NULL,
            device_name TEXT NOT NULL, created BIGINT NOT NULL, resolved_at BIGINT)
        """,
        "CREATE INDEX conflicts_open ON conflicts (namespace, created) WHERE resolved_at IS NULL",
        "CREATE INDEX conflicts_node ON conflicts (node)",
        "CREATE INDEX conflicts_copy ON conflicts (copy)",
    ]
}
