-- The sample table of the embedded stack. movies.csv beside this file fills it; SOURCE.md says where the facts come
-- from. Its types are mixed on purpose: exact numbers, dates, text beyond ASCII, an array, JSON, and many NULLs.
create table public.movies (
    movie_id               integer primary key,
    title                  text,
    release_date           date,
    us_gross               bigint,
    worldwide_gross        bigint,
    us_dvd_sales           bigint,
    production_budget      bigint,
    mpaa_rating            text,
    running_time_min       smallint,
    distributor            text,
    source                 text,
    major_genre            text,
    creative_type          text,
    director               text,
    rotten_tomatoes_rating smallint,
    imdb_rating            numeric(3, 1),
    imdb_votes             integer,
    genres                 text[],
    ratings                jsonb
);

comment on table public.movies is
    '3,201 real films from vega-datasets 3.2.1 (movies.json), as they were known in 2010, errors included';
comment on column public.movies.movie_id is 'place in movies.json, from 1';
comment on column public.movies.title is 'one film has none; a few are numbers (1776), kept as text';
comment on column public.movies.release_date is 'years after 2011 in the source meant a century earlier and were put right';
comment on column public.movies.us_gross is 'US dollars';
comment on column public.movies.worldwide_gross is 'US dollars; over the range of integer in places';
comment on column public.movies.us_dvd_sales is 'US dollars';
comment on column public.movies.production_budget is 'US dollars';
comment on column public.movies.running_time_min is 'minutes';
comment on column public.movies.source is 'what the screenplay is based on';
comment on column public.movies.rotten_tomatoes_rating is 'per cent';
comment on column public.movies.imdb_rating is '0.0 to 10.0';
comment on column public.movies.genres is 'major_genre and creative_type, those that are known; NULL where neither is';
comment on column public.movies.ratings is
    '{"imdb": {"rating", "votes"}, "rotten_tomatoes"}, those that are known; NULL where none is';
