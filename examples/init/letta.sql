-- Like Letta's own start-up script: a schema with the database's name and the extension in it, first in the search path
-- that is stored with the database, and no schema public.
CREATE SCHEMA IF NOT EXISTS :"DBNAME";
CREATE EXTENSION IF NOT EXISTS vector SCHEMA :"DBNAME";
ALTER DATABASE :"DBNAME" SET search_path TO :"DBNAME", "$user", public;
DROP SCHEMA IF EXISTS public;
