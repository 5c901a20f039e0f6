PRAGMA application_id = 1347176781;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE checkpoints (
        run_id INTEGER PRIMARY KEY,
        step INTEGER NOT NULL,
        state BLOB NOT NULL,
        FOREIGN KEY (run_id, step) REFERENCES steps (run_id, step)
    ) STRICT
    ;
INSERT INTO "checkpoints" VALUES(1,2,X'62');
INSERT INTO "checkpoints" VALUES(2,7,X'7374617465FF');
CREATE TABLE endings (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        outcome TEXT NOT NULL CHECK (length(outcome) > 0),
        final INTEGER NOT NULL CHECK (final IN (0, 1)),
        result TEXT NOT NULL CHECK (json_valid(result)),
        artifact BLOB,
        created TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "endings" VALUES(1,1,'solved',1,'{"pairs":2}',X'0070726F6D7074','2026-11-22T22:16:31.492+00:00');
INSERT INTO "endings" VALUES(2,2,'interrupted',0,'{}',NULL,'2026-11-22T22:16:31.492+00:00');
CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (length(kind) > 0),
        key_hash TEXT NOT NULL CHECK (length(key_hash) = 64),
        key TEXT NOT NULL CHECK (json_valid(key)),
        payload TEXT NOT NULL CHECK (json_valid(payload)),
        created TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "records" VALUES(1,'bracket','4835f96cb95414c1b3dd5816bcabc7ae1405283accdbdf990de0f35f07075abb','{"p":1}','{"floor":1}','2026-11-22T22:16:31.492+00:00');
INSERT INTO "records" VALUES(2,'bracket','4835f96cb95414c1b3dd5816bcabc7ae1405283accdbdf990de0f35f07075abb','{"p":1}','{"floor":2}','2026-11-22T22:16:31.492+00:00');
CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        spec_hash TEXT NOT NULL UNIQUE CHECK (length(spec_hash) = 64),
        spec TEXT NOT NULL CHECK (json_valid(spec)),
        seed INTEGER NOT NULL,
        provenance TEXT NOT NULL CHECK (json_valid(provenance)),
        created TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "runs" VALUES(1,'68d7883f8f8c62360c74f22a4ffaf4758e915a233d6aaaf7b01f8b49e4ef5111','{"name":"\u00c5land","seed":1}',1,'{"torch":"2.13.0"}','2026-11-22T22:16:31.491+00:00');
INSERT INTO "runs" VALUES(2,'92390bc06c7b8c3c405ea9ccb2ae0c178986c25f820b03204559fa9b9c1d8a7a','{"name":"\u00c5land","seed":2}',2,'{}','2026-11-22T22:16:31.492+00:00');
CREATE TABLE steps (
        run_id INTEGER NOT NULL REFERENCES runs (id),
        step INTEGER NOT NULL CHECK (step >= 0),
        metrics TEXT NOT NULL CHECK (json_valid(metrics)),
        created TEXT NOT NULL,
        PRIMARY KEY (run_id, step)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "steps" VALUES(1,1,'{"loss":0.5}','2026-11-22T22:16:31.492+00:00');
INSERT INTO "steps" VALUES(1,2,'{"loss":0.1}','2026-11-22T22:16:31.492+00:00');
INSERT INTO "steps" VALUES(2,7,'{}','2026-11-22T22:16:31.492+00:00');
CREATE TABLE used_time (
        id INTEGER PRIMARY KEY,
        command_hash TEXT NOT NULL CHECK (length(command_hash) > 0),
        seconds REAL NOT NULL CHECK (seconds >= 0),
        created TEXT NOT NULL
    ) STRICT
    ;
INSERT INTO "used_time" VALUES(1,'command',1.5,'2026-11-22T22:16:31.492+00:00');
INSERT INTO "used_time" VALUES(2,'command',0.25,'2026-11-22T22:16:31.492+00:00');
CREATE INDEX endings_of_run ON endings (run_id);
CREATE UNIQUE INDEX one_final_ending ON endings (run_id) WHERE final = 1;
CREATE INDEX records_by_key ON records (kind, key_hash);
CREATE INDEX used_time_of_command ON used_time (command_hash);
CREATE TRIGGER steps_go_up BEFORE INSERT ON steps
    WHEN NEW.step <= (SELECT MAX(step) FROM steps WHERE run_id = NEW.run_id)
    BEGIN SELECT RAISE(ABORT, 'steps of a run must go up'); END;
CREATE TRIGGER no_steps_after_final BEFORE INSERT ON steps
    WHEN EXISTS (SELECT 1 FROM endings WHERE run_id = NEW.run_id AND final = 1)
    BEGIN SELECT RAISE(ABORT, 'the run has ended'); END;
CREATE TRIGGER no_endings_after_final BEFORE INSERT ON endings
    WHEN EXISTS (SELECT 1 FROM endings WHERE run_id = NEW.run_id AND final = 1)
    BEGIN SELECT RAISE(ABORT, 'the run has ended'); END;
CREATE TRIGGER runs_no_UPDATE BEFORE UPDATE ON runs
    BEGIN SELECT RAISE(ABORT, 'runs is append-only'); END;
CREATE TRIGGER runs_no_DELETE BEFORE DELETE ON runs
    BEGIN SELECT RAISE(ABORT, 'runs is append-only'); END;
CREATE TRIGGER steps_no_UPDATE BEFORE UPDATE ON steps
    BEGIN SELECT RAISE(ABORT, 'steps is append-only'); END;
CREATE TRIGGER steps_no_DELETE BEFORE DELETE ON steps
    BEGIN SELECT RAISE(ABORT, 'steps is append-only'); END;
CREATE TRIGGER endings_no_UPDATE BEFORE UPDATE ON endings
    BEGIN SELECT RAISE(ABORT, 'endings is append-only'); END;
CREATE TRIGGER endings_no_DELETE BEFORE DELETE ON endings
    BEGIN SELECT RAISE(ABORT, 'endings is append-only'); END;
CREATE TRIGGER records_no_UPDATE BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records is append-only'); END;
CREATE TRIGGER records_no_DELETE BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records is append-only'); END;
CREATE TRIGGER used_time_no_UPDATE BEFORE UPDATE ON used_time
    BEGIN SELECT RAISE(ABORT, 'used_time is append-only'); END;
CREATE TRIGGER used_time_no_DELETE BEFORE DELETE ON used_time
    BEGIN SELECT RAISE(ABORT, 'used_time is append-only'); END;
COMMIT;
