-- What providers call users who log in there.
CREATE TABLE foreign_logins (
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (provider, subject)
);
CREATE INDEX foreign_logins_by_user ON foreign_logins (user_id);
