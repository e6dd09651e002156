-- A small memory of Scarlet's, in the shape of Letta's schema: 2 agents, 12 blocks, 300 messages, 200 passages.
-- It is the same every time it is loaded, and holds what a careless backup loses: control characters, \u0000 in JSON,
-- backslashes, line ends of each kind, NULL beside '', and characters outside ASCII and outside the first plane.
-- Load it into an empty database, with psql -v ON_ERROR_STOP=1 or any client: there are no psql commands in it.

BEGIN;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL timezone = 'UTC';
SET LOCAL standard_conforming_strings = on;
SET LOCAL client_min_messages = warning;

-- As Letta's own start-up script leaves a database: its own schema with the extension in it, a search path of the
-- database, no schema public.
CREATE SCHEMA IF NOT EXISTS letta;
CREATE EXTENSION IF NOT EXISTS vector SCHEMA letta;
DROP SCHEMA IF EXISTS public;
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path TO letta, "$user", public', current_database());
END
$$;
SET LOCAL search_path TO letta;

CREATE TYPE sandboxtype AS ENUM ('E2B', 'LOCAL', 'MODAL');

CREATE SEQUENCE message_seq_id;

CREATE TABLE organizations (
    id varchar PRIMARY KEY,
    name varchar NOT NULL,
    privileged_tools boolean NOT NULL,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    is_deleted boolean DEFAULT false NOT NULL
);

CREATE TABLE agents (
    id varchar PRIMARY KEY,
    organization_id varchar NOT NULL REFERENCES organizations (id),
    agent_type varchar,
    name varchar,
    description varchar,
    system varchar,
    message_ids json,
    llm_config json,
    embedding_config json,
    metadata_ json,
    tool_rules json,
    timezone varchar,
    last_run_duration_ms integer,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    is_deleted boolean DEFAULT false NOT NULL
);
CREATE INDEX ix_agents_created_at ON agents (created_at, id);

CREATE TABLE block (
    id varchar PRIMARY KEY,
    organization_id varchar REFERENCES organizations (id),
    label varchar NOT NULL,
    value varchar NOT NULL,
    "limit" bigint NOT NULL,
    description varchar,
    is_template boolean NOT NULL,
    read_only boolean NOT NULL,
    metadata_ json,
    current_history_entry_id varchar,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamptz DEFAULT now(),
    UNIQUE (id, label)
);

-- block and block_history refer to each other.
CREATE TABLE block_history (
    id varchar PRIMARY KEY,
    block_id varchar NOT NULL REFERENCES block (id) ON DELETE CASCADE,
    sequence_number integer NOT NULL,
    actor_type varchar CHECK (actor_type IN ('user', 'agent', 'system')),
    value text NOT NULL,
    UNIQUE (block_id, sequence_number)
);
ALTER TABLE block ADD CONSTRAINT fk_block_current_history_entry
    FOREIGN KEY (current_history_entry_id) REFERENCES block_history (id) ON DELETE SET NULL;

CREATE TABLE blocks_agents (
    agent_id varchar NOT NULL REFERENCES agents (id),
    block_id varchar NOT NULL,
    block_label varchar NOT NULL,
    PRIMARY KEY (agent_id, block_id, block_label),
    CONSTRAINT fk_block_id_label FOREIGN KEY (block_id, block_label) REFERENCES block (id, label)
        ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED,
    UNIQUE (agent_id, block_label)
);

CREATE TABLE identities (
    id varchar PRIMARY KEY,
    organization_id varchar NOT NULL REFERENCES organizations (id),
    identifier_key varchar NOT NULL,
    project_id varchar,
    name varchar NOT NULL,
    properties json DEFAULT '[]' NOT NULL,
    UNIQUE NULLS NOT DISTINCT (identifier_key, project_id, organization_id)
);

CREATE TABLE sandbox_configs (
    id varchar PRIMARY KEY,
    organization_id varchar NOT NULL REFERENCES organizations (id),
    type sandboxtype NOT NULL,
    config json NOT NULL
);

CREATE TABLE messages (
    id varchar PRIMARY KEY,
    agent_id varchar REFERENCES agents (id),
    organization_id varchar NOT NULL REFERENCES organizations (id),
    role varchar NOT NULL,
    text varchar,
    content json,
    model varchar,
    name varchar,
    tool_calls json,
    tool_call_id varchar,
    sequence_id bigint DEFAULT nextval('message_seq_id') NOT NULL UNIQUE,
    created_at timestamptz DEFAULT now()
);
ALTER SEQUENCE message_seq_id OWNED BY messages.sequence_id;
CREATE INDEX ix_messages_agent_sequence ON messages (agent_id, sequence_id);

CREATE TABLE archival_passages (
    id varchar PRIMARY KEY,
    agent_id varchar REFERENCES agents (id) ON DELETE CASCADE,
    organization_id varchar NOT NULL REFERENCES organizations (id),
    text varchar NOT NULL,
    embedding vector(4096),
    embedding_config json,
    metadata_ json NOT NULL,
    tags json,
    created_at timestamptz DEFAULT now(),
    is_deleted boolean DEFAULT false NOT NULL
);
CREATE INDEX archival_passages_created_at_id_idx ON archival_passages (created_at, id);

CREATE FUNCTION pg_temp.id_of(kind text, n integer) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT kind || '-' || md5(kind || ' ' || n)::uuid $$;

-- Texts that are used by turns.
CREATE TEMPORARY TABLE phrase (turn integer PRIMARY KEY, body text) ON COMMIT DROP;
INSERT INTO phrase VALUES
    (0, 'Perché la città è più bella di notte? Così, senza un perché.'),
    (1, 'L''utente preferisce il caffè «ristretto» – mai dopo le 18:00… costa 1,20 €.'),
    (2, 'Ricordo di quel giorno: 🌹 🧠 👩🏽‍🚀 🇮🇹 e un cuore rosso ❤️.'),
    (3, E'Il percorso è H:\\ABIOGENESIS\\scarlet\\backups\\nuovo, e la nota finisce con \\'),
    (4, E'colonna\tseparata\tda tabulazioni\ne da righe\r\ndi Windows\re di un vecchio Mac'),
    (5, E'Caratteri di controllo: \x01\x02\x07\x08\x0b\x0c\x1a\x1b[31m\x1f\x7f fine'),
    (6, E'Fine riga insoliti: \u0085 e \u2028 e \u2029, spazio duro \u00a0, BOM \ufeff, larghezza zero \u200b.'),
    (7, E'\\.\n\\N\n-- PostgreSQL database dump complete\n\\connect altro\nCOPY public.x FROM stdin;'),
    (8, 'Virgolette "doppie", ''singole'', `gravi`, $$dollari$$, 100% & <tag> {graffe} [quadre]'),
    (9, E'combinato e\u0301 contro composto é; 日本語, العربية, עברית, Ελληνικά, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝄞'),
    (10, '   spazi prima e dopo   '),
    (11, '');

INSERT INTO organizations (id, name, privileged_tools, created_at, updated_at) VALUES
    ('org-00000000-0000-4000-8000-000000000000', 'default_org', false, '2026-01-31 21:04:05.678901+00', NULL);

INSERT INTO agents (id, organization_id, agent_type, name, description, system, message_ids, llm_config,
                    embedding_config, metadata_, tool_rules, timezone, last_run_duration_ms, created_at, updated_at)
SELECT pg_temp.id_of('agent', n), 'org-00000000-0000-4000-8000-000000000000',
       (ARRAY['letta_v1_agent', 'sleeptime_agent'])[n], (ARRAY['Scarlet', 'Scarlet-sleeptime'])[n],
       CASE n WHEN 1 THEN 'Agente con memoria persistente 🌹' END,
       E'<base_instructions>\nSei Scarlet. Ricorda ciò che conta; dì "non lo so" quando non lo sai.\n\tUsa C:\\temp\\ '
           'solo per ciò che è temporaneo.\n</base_instructions>\n',
       (SELECT json_agg(pg_temp.id_of('message', m)) FROM generate_series(n, 300, 2) AS m),
       '{"model": "qwen3", "context_window": 32768, "temperature": 0.7, "put_inner_thoughts_in_kwargs": true}',
       '{"embedding_model": "nomic-embed-text", "embedding_dim": 384, "embedding_chunk_size": 300}',
       '{"origine": "prova", "emoji": "\ud83c\udf39", "nul": "prima\u0000dopo"}',
       '[{"tool_name": "send_message", "type": "exit_loop"}]', 'Europe/Rome', CASE n WHEN 1 THEN 1234 END,
       timestamptz '2026-02-01 09:00:00.123456+00' + n * interval '1 hour', '2026-11-01 00:00:00+00'
FROM generate_series(1, 2) AS n;

INSERT INTO block (id, organization_id, label, value, "limit", description, is_template, read_only, metadata_, version,
                   created_at)
SELECT pg_temp.id_of('block', n), 'org-00000000-0000-4000-8000-000000000000',
       (ARRAY['persona', 'human', 'obiettivi', 'relazioni', 'diario', 'strumenti'])[1 + (n - 1) % 6],
       repeat((SELECT body FROM phrase WHERE turn = n - 1) || E'\n', 1 + n % 3), 5000 + n,
       CASE WHEN n % 3 <> 0 THEN 'Blocco n. ' || n END, false, n % 5 = 0,
       CASE WHEN n % 2 = 0 THEN '{"nota": "tab\u0009, nul\u0000, euro \u20ac"}'::json END, n,
       timestamptz '2026-02-01 09:00:00+00' + n * interval '1 day'
FROM generate_series(1, 12) AS n;

INSERT INTO block_history (id, block_id, sequence_number, actor_type, value)
SELECT pg_temp.id_of('block_hist', n), pg_temp.id_of('block', 1 + n % 12), 1 + n / 12,
       (ARRAY['user', 'agent', 'system', NULL])[1 + n % 4], (SELECT body FROM phrase WHERE turn = n % 12)
FROM generate_series(0, 23) AS n;
UPDATE block SET current_history_entry_id =
    (SELECT id FROM block_history WHERE block_id = block.id ORDER BY sequence_number DESC LIMIT 1);

INSERT INTO blocks_agents (agent_id, block_id, block_label)
SELECT pg_temp.id_of('agent', 1 + (n - 1) / 6), id, label
FROM generate_series(1, 12) AS n JOIN block ON id = pg_temp.id_of('block', n);

INSERT INTO identities (id, organization_id, identifier_key, project_id, name, properties) VALUES
    ('identity-1', 'org-00000000-0000-4000-8000-000000000000', 'davide', NULL, 'Davide', '[{"lingua": "it"}]'),
    ('identity-2', 'org-00000000-0000-4000-8000-000000000000', 'davide', 'prova', 'Davide (prova)', '[]');

INSERT INTO sandbox_configs (id, organization_id, type, config) VALUES
    ('sandbox-1', 'org-00000000-0000-4000-8000-000000000000', 'LOCAL',
     '{"sandbox_dir": "/tmp/sandbox dir", "venv": null}');

-- Type json keeps the text as it was written, so also escapes that jsonb would refuse.
INSERT INTO messages (id, agent_id, organization_id, role, text, content, model, name, tool_calls, tool_call_id,
                      created_at)
SELECT pg_temp.id_of('message', n), pg_temp.id_of('agent', 1 + (n - 1) % 2), 'org-00000000-0000-4000-8000-000000000000',
       (ARRAY['user', 'assistant', 'tool', 'system'])[1 + n % 4],
       CASE WHEN n % 7 <> 0 THEN body END,
       ('[{"type": "text", "text": ' || to_json(body)::text
           || ', "grezzo": "perch\u00e9 \ud83e\udde0 nul\u0000 fine", "n": ' || n || '}]')::json,
       CASE WHEN n % 4 = 1 THEN 'qwen3' END, CASE WHEN n % 4 = 2 THEN 'conversation_search' END,
       CASE WHEN n % 4 = 1 THEN
           '[{"id": "call_\u0001", "function": {"name": "send_message", "arguments": "{\"message\": \"ciao\\n\"}"}}]'
               ::json END,
       CASE WHEN n % 4 = 2 THEN 'call_' || n END,
       timestamptz '2026-02-02 10:00:00.000001+00' + n * interval '17 minutes 3.141593 seconds'
FROM generate_series(1, 300) AS n JOIN phrase ON turn = n % 12
ORDER BY n;

-- Embeddings of 384 numbers filled up with zeros, as Letta pads them. Every twentieth has none yet.
INSERT INTO archival_passages (id, agent_id, organization_id, text, embedding, embedding_config, metadata_, tags,
                               created_at)
SELECT pg_temp.id_of('passage', n), pg_temp.id_of('agent', 1), 'org-00000000-0000-4000-8000-000000000000',
       'Ricordo ' || n || E':\n' || body,
       CASE WHEN n % 20 <> 0 THEN
           (SELECT array_agg(CASE WHEN d <= 384 THEN (n * 7919 + d * 104729) % 20011 / 10005.5 - 1 ELSE 0 END
                             ORDER BY d)
            FROM generate_series(1, 4096) AS d)::real[]::vector END,
       '{"embedding_model": "nomic-embed-text", "embedding_dim": 384}',
       json_build_object('fonte', 'conversazione', 'peso', n / 200.0),
       CASE WHEN n % 3 = 0 THEN json_build_array('ricordo', 'città', '🌹') END,
       timestamptz '2026-03-01 00:00:00+00' + n * interval '1 hour'
FROM generate_series(1, 200) AS n JOIN phrase ON turn = n % 12
ORDER BY n;

COMMIT;
