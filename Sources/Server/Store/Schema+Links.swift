extension Schema {
    /// Links, and tickets of downloads under way: who shows one may go on reading what one counted download began.
    static let linkTables = [
        """
        CREATE TABLE links (
            id BLOB PRIMARY KEY, token BLOB NOT NULL UNIQUE, namespace BLOB NOT NULL, node BLOB NOT NULL, account BLOB NOT NULL, kind TEXT NOT NULL,
            view_only BIGINT NOT NULL, salt BLOB, password BLOB, created BIGINT NOT NULL, expires BIGINT, revoked BIGINT, maximum_downloads BIGINT,
            downloads BIGINT NOT NULL, opens BIGINT NOT NULL, maximum_bytes BIGINT, received BIGINT NOT NULL, used BIGINT)
        """,
        "CREATE INDEX links_namespace ON links (namespace)",
        "CREATE INDEX links_account ON links (account)",
        "CREATE TABLE link_tickets (ticket BLOB PRIMARY KEY, link BLOB NOT NULL, version BLOB, expires BIGINT NOT NULL)",
        "CREATE INDEX link_tickets_expires ON link_tickets (expires)",
    ]
}
