-- How the server of a repository is asked, beside the secret: a JSON object with the user and the known host keys.

ALTER TABLE repos ADD COLUMN access text NOT NULL DEFAULT '{}';
