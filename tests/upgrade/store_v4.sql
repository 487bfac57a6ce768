BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE answers (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	offer_id INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	outcome TEXT, 
	attempt INTEGER NOT NULL, 
	holder TEXT NOT NULL, 
	leased DOUBLE NOT NULL, 
	told DOUBLE NOT NULL, 
	CONSTRAINT pk_answers PRIMARY KEY (id), 
	CONSTRAINT fk_answers_study_id FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT fk_answers_offer_id FOREIGN KEY(offer_id) REFERENCES offers (id), 
	CONSTRAINT uq_answers_offer_id_digest UNIQUE (offer_id, digest)
);
INSERT INTO "answers" VALUES(1,5,1,'d49dd649fcc34c595d706ad4b63f78389ff47f883213cff5d7e251fa3bc852d3','{"timing": [0.0, 0.0, 2.5, 0.0, 0.0], "worker": "gr\u00f6\u00dfe", "scores": {"mnist": [0.5, 0.125, 8], "cost": [-0.3333333333333333, 0.0, 1]}, "metrics": {"mnist": {"accuracy": [0.5, 0.125, 8], "loss": [1.5, 0.25, 8]}}, "examples": {"mnist": "AAAAAAAAgD+rqqo+"}, "gradients": {"cost": "VVVVVVVV1T8="}}',1,'größe',1044.0,1045.0);
INSERT INTO "answers" VALUES(2,5,1,'5d28a90f4498a81461efbaf6f628a19d9778390bb5c81a393dd936181cc3d826','{"timing": [0.0, 0.0, 0.0, 0.0, 0.0], "worker": "", "kind": "OSError", "message": "no file"}',1,'größe',1044.0,1051.0);
CREATE TABLE arrays (
	evaluation_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	objective TEXT NOT NULL, 
	dtype TEXT NOT NULL, 
	shape TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_arrays PRIMARY KEY (evaluation_id, kind, objective), 
	CONSTRAINT fk_arrays_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "arrays" VALUES(2,'examples','mnist','<f4','[8]',X'0000803F0000803F000000000000803F0000803F000000000000803F0000803F');
INSERT INTO "arrays" VALUES(4,'gradient','mnist','<f8','[2]',X'555555555555D53F0100000000000080');
INSERT INTO "arrays" VALUES(4,'gradient','cost','<f8','[2]',X'000000000000F87F000000000000F0FF');
INSERT INTO "arrays" VALUES(7,'examples','mnist','<f4','[4]',X'000000000000803F000000000000803F');
CREATE TABLE artifacts (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	candidate INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	path TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_artifacts PRIMARY KEY (id), 
	CONSTRAINT fk_artifacts_study_id FOREIGN KEY(study_id) REFERENCES studies (id)
);
INSERT INTO "artifacts" VALUES(1,2,1,'export','out/merged','abababababababababababababababababababababababababababababababab',1012.0);
CREATE TABLE candidates (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	point BLOB, 
	origin TEXT NOT NULL, share DOUBLE DEFAULT 1 NOT NULL, "offset" DOUBLE DEFAULT 0 NOT NULL, gradient TEXT DEFAULT '' NOT NULL, continues INTEGER, cost DOUBLE DEFAULT 1 NOT NULL, 
	CONSTRAINT pk_candidates PRIMARY KEY (id), 
	CONSTRAINT fk_candidates_study_id FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT uq_candidates_study_id_number UNIQUE (study_id, number)
);
INSERT INTO "candidates" VALUES(1,2,0,NULL,'baseline:average',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(2,2,1,X'0000000000000000555555555555D53F000000000000F03F','start',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(3,3,0,X'000000000000D03F555555555555D53F','start',1.0,0.0,'loss',NULL,3.0);
INSERT INTO "candidates" VALUES(4,3,1,X'000000000000D03F555555555555D53F','race',0.25,0.0,'',NULL,0.25);
INSERT INTO "candidates" VALUES(5,3,2,X'000000000000D03F555555555555D53F','race',0.75,0.25,'',1,0.75);
INSERT INTO "candidates" VALUES(6,4,0,X'000000000000E03F0000000000000000','sample',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(7,4,1,X'000000000000E03F555555555555D53F','sample',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(8,5,0,X'0000000000000000','sample',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(9,5,1,X'555555555555D53F','sample',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(10,5,2,X'555555555555E53F','sample',1.0,0.0,'',NULL,1.0);
INSERT INTO "candidates" VALUES(11,5,3,X'000000000000F03F','sample',1.0,0.0,'',NULL,1.0);
CREATE TABLE commands (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	action TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	done DOUBLE, 
	CONSTRAINT pk_commands PRIMARY KEY (id), 
	CONSTRAINT fk_commands_study_id FOREIGN KEY(study_id) REFERENCES studies (id)
);
INSERT INTO "commands" VALUES(1,2,'pause',1009.0,1010.0);
INSERT INTO "commands" VALUES(2,2,'cancel',1011.0,NULL);
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	candidate_id INTEGER NOT NULL, 
	split TEXT NOT NULL, 
	status TEXT NOT NULL, 
	asked_seq INTEGER NOT NULL, 
	told_seq INTEGER, 
	asked DOUBLE NOT NULL, 
	told DOUBLE, 
	kind TEXT, 
	message TEXT, 
	queue_seconds DOUBLE, 
	build_seconds DOUBLE, 
	score_seconds DOUBLE, 
	worker TEXT, record_seconds DOUBLE, gpu_seconds DOUBLE, 
	CONSTRAINT pk_evaluations PRIMARY KEY (id), 
	CONSTRAINT ck_evaluations_told CHECK ((status = 'asked') = (told_seq IS NULL)), 
	CONSTRAINT ck_evaluations_status CHECK (status IN ('asked', 'scored', 'failed')), 
	CONSTRAINT fk_evaluations_candidate_id FOREIGN KEY(candidate_id) REFERENCES candidates (id), 
	CONSTRAINT fk_evaluations_study_id FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT uq_evaluations_study_id_candidate_id_split UNIQUE (study_id, candidate_id, split)
);
INSERT INTO "evaluations" VALUES(1,2,1,'search','failed',1,4,1003.0,1006.0,'ValueError','label ''ü'' is unknown',0.0,0.0,0.0,'gpu-2',0.0,0.0);
INSERT INTO "evaluations" VALUES(2,2,2,'search','scored',2,3,1004.0,1005.0,NULL,NULL,0.5,0.25,2.0,'gpu-1',0.0,0.0);
INSERT INTO "evaluations" VALUES(3,2,2,'confirm','asked',5,NULL,1007.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "evaluations" VALUES(4,3,3,'search','scored',1,3,1022.0,1024.0,NULL,NULL,0.0,0.0,0.0,'',0.0,0.0);
INSERT INTO "evaluations" VALUES(5,3,4,'search','scored',2,4,1023.0,1025.0,NULL,NULL,0.0,0.0,0.0,'',0.0,0.0);
INSERT INTO "evaluations" VALUES(6,3,5,'search','asked',5,NULL,1026.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "evaluations" VALUES(7,4,6,'search','scored',1,3,1032.0,1033.0,NULL,NULL,0.5,0.25,2.0,'gpu-1',0.125,4.5);
INSERT INTO "evaluations" VALUES(8,4,7,'search','failed',2,4,1032.0,1034.0,'timeout','too slow',0.0,0.0,0.0,'',0.0,0.0);
INSERT INTO "evaluations" VALUES(9,5,8,'search','asked',1,NULL,1042.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "evaluations" VALUES(10,5,9,'search','asked',2,NULL,1042.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "evaluations" VALUES(11,5,10,'search','asked',3,NULL,1042.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "evaluations" VALUES(12,5,11,'search','asked',4,NULL,1042.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE facts (
	study_id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_facts PRIMARY KEY (study_id, "key"), 
	CONSTRAINT fk_facts_study_id FOREIGN KEY(study_id) REFERENCES studies (id)
);
INSERT INTO "facts" VALUES(2,'chosen','1');
INSERT INTO "facts" VALUES(2,'r2','{"mnist": 0.5}');
CREATE TABLE offers (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	split TEXT NOT NULL, 
	body TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	state TEXT NOT NULL, 
	holders TEXT NOT NULL, 
	offered DOUBLE NOT NULL, 
	leased DOUBLE NOT NULL, 
	until DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_offers PRIMARY KEY (id), 
	CONSTRAINT ck_offers_state CHECK (state IN ('open', 'leased', 'told')), 
	CONSTRAINT fk_offers_study_id FOREIGN KEY(study_id) REFERENCES studies (id), 
	CONSTRAINT uq_offers_study_id_number_split UNIQUE (study_id, number, split)
);
INSERT INTO "offers" VALUES(1,5,0,'search','','key0','told','["gr\u00f6\u00dfe"]',1043.0,1044.0,1049.0,300.0);
INSERT INTO "offers" VALUES(2,5,1,'search','{"values": [1]}','key1','leased','["gr\u00f6\u00dfe", "second"]',1043.0,1050.0,1110.0,300.0);
INSERT INTO "offers" VALUES(3,5,2,'search','{"values": [2]}','key2','open','[]',1043.0,0.0,0.0,300.0);
INSERT INTO "offers" VALUES(4,5,3,'search','{"values": [3]}','key3','open','[]',1043.0,0.0,0.0,300.0);
CREATE TABLE repeat_scores (
	repeat_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	objective TEXT NOT NULL, 
	value DOUBLE, 
	stderr DOUBLE, 
	n INTEGER NOT NULL, 
	CONSTRAINT pk_repeat_scores PRIMARY KEY (repeat_id, position), 
	CONSTRAINT fk_repeat_scores_repeat_id FOREIGN KEY(repeat_id) REFERENCES repeats (id)
);
INSERT INTO "repeat_scores" VALUES(1,0,'mnist',0.625,0.125,8);
INSERT INTO "repeat_scores" VALUES(1,1,'cost',0.25,0.0,1);
INSERT INTO "repeat_scores" VALUES(3,0,'mnist',0.625,0.125,8);
INSERT INTO "repeat_scores" VALUES(3,1,'cost',0.25,0.0,1);
CREATE TABLE repeats (
	id INTEGER NOT NULL, 
	evaluation_id INTEGER NOT NULL, 
	told DOUBLE NOT NULL, 
	status TEXT NOT NULL, 
	kind TEXT, 
	message TEXT, 
	worker TEXT NOT NULL, 
	queue_seconds DOUBLE NOT NULL, 
	build_seconds DOUBLE NOT NULL, 
	score_seconds DOUBLE NOT NULL, 
	record_seconds DOUBLE NOT NULL, 
	gpu_seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_repeats PRIMARY KEY (id), 
	CONSTRAINT ck_repeats_status CHECK (status IN ('scored', 'failed')), 
	CONSTRAINT fk_repeats_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "repeats" VALUES(1,7,1035.0,'scored',NULL,NULL,'gpu-2',0.0,0.0,0.0,0.0,0.0);
INSERT INTO "repeats" VALUES(2,7,1036.0,'failed','worker_lost','gone','',0.0,0.0,0.0,0.0,0.0);
INSERT INTO "repeats" VALUES(3,8,1037.0,'scored',NULL,NULL,'gpu-2',0.0,0.0,0.0,0.0,0.0);
CREATE TABLE scores (
	evaluation_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	objective TEXT NOT NULL, 
	metric TEXT NOT NULL, 
	is_objective BOOLEAN NOT NULL, 
	value DOUBLE, 
	stderr DOUBLE, 
	n INTEGER NOT NULL, digest TEXT, 
	CONSTRAINT pk_scores PRIMARY KEY (evaluation_id, position), 
	CONSTRAINT fk_scores_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
)
 WITHOUT ROWID

;
INSERT INTO "scores" VALUES(2,0,'mnist','',1,0.75,0.125,8,NULL);
INSERT INTO "scores" VALUES(2,1,'cost','',1,-0.1,0.0,1,NULL);
INSERT INTO "scores" VALUES(2,2,'mnist','accuracy',0,0.75,0.125,8,NULL);
INSERT INTO "scores" VALUES(2,3,'mnist','loss',0,2.5,0.0,8,NULL);
INSERT INTO "scores" VALUES(4,0,'mnist','',1,0.5,0.125,8,NULL);
INSERT INTO "scores" VALUES(4,1,'cost','',1,0.25,0.0,1,NULL);
INSERT INTO "scores" VALUES(4,2,'mnist','accuracy',0,0.5,0.125,8,NULL);
INSERT INTO "scores" VALUES(4,3,'mnist','loss',0,1.5,0.25,8,NULL);
INSERT INTO "scores" VALUES(5,0,'mnist','',1,0.5,0.125,8,NULL);
INSERT INTO "scores" VALUES(5,1,'cost','',1,0.25,0.0,1,NULL);
INSERT INTO "scores" VALUES(7,0,'mnist','',1,0.5,0.125,8,'abababababababababababababababababababababababababababababababab');
INSERT INTO "scores" VALUES(7,1,'cost','',1,0.25,0.0,1,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd');
INSERT INTO "scores" VALUES(7,2,'mnist','accuracy',0,0.5,0.125,8,NULL);
INSERT INTO "scores" VALUES(7,3,'mnist','loss',0,1.5,0.25,8,NULL);
CREATE TABLE studies (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	status TEXT NOT NULL, 
	message TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	updated DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	seq INTEGER NOT NULL, 
	lease_owner TEXT NOT NULL, 
	lease_token INTEGER NOT NULL, 
	lease_until DOUBLE NOT NULL, 
	lease_renewed DOUBLE NOT NULL, 
	CONSTRAINT pk_studies PRIMARY KEY (id), 
	CONSTRAINT uq_studies_name UNIQUE (name)
);
INSERT INTO "studies" VALUES(1,'empty','','d0','new','',1000.0,1000.0,0.0,0,'',0,0.0,0.0);
INSERT INTO "studies" VALUES(2,'digits-3','name: digits-3
strategy: {kind: cma_es}
# größer','d1','running','',1001.0,1010.0,6.0,5,'old-host:1',1,1068.0,1008.0);
INSERT INTO "studies" VALUES(3,'windows','','d2','new','',1020.0,1026.0,0.0,5,'old-host:2',1,1081.0,1021.0);
INSERT INTO "studies" VALUES(4,'cached','','d3','new','',1030.0,1034.0,0.0,4,'old-host:3',1,1091.0,1031.0);
INSERT INTO "studies" VALUES(5,'outside','','d4','new','',1040.0,1042.0,0.0,4,'old-host:4',1,1101.0,1041.0);
CREATE UNIQUE INDEX ix_evaluations_study_id_asked_seq ON evaluations (study_id, asked_seq);
CREATE UNIQUE INDEX ix_evaluations_study_id_told_seq ON evaluations (study_id, told_seq);
CREATE INDEX ix_commands_study_id ON commands (study_id);
CREATE INDEX ix_artifacts_study_id ON artifacts (study_id);
CREATE INDEX ix_evaluations_candidate_id ON evaluations (candidate_id);
CREATE INDEX ix_scores_digest ON scores (digest) WHERE digest IS NOT NULL;
CREATE INDEX ix_repeats_evaluation_id ON repeats (evaluation_id);
CREATE INDEX ix_offers_study_id_state ON offers (study_id, state);
CREATE INDEX ix_answers_study_id ON answers (study_id) WHERE outcome IS NOT NULL;
COMMIT;
