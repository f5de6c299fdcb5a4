use std::io::Write;

use super::*;

const HEADER: &str =
    "time_hour,sched_dep_time,origin,dest,carrier,flight,tailnum,dep_delay,arr_delay,distance\n";

fn read(rows: &str) -> Vec<Result<Flight, FlightsError>> {
    Flights::read(io::Cursor::new(format!("{HEADER}{rows}"))).unwrap().collect()
}

fn add(key: &str, delta: i64) -> Signal {
    Signal::Add { key: key.into(), delta }
}

#[test]
fn a_flight_sends_four_adds_and_a_set() {
    let flight = read("2013-01-01T10:00:00Z,545,JFK,BQN,B6,725,N804JB,-1,-18,1576\n").remove(0).unwrap();
    let value = "JFK→BQN 2013-01-01T10:00:00Z".to_owned();
    assert_eq!(
        flight.signals(),
        [
            add("departures:BQN", 1),
            add("departures:carrier:B6", 1),
            add("delay_minutes:BQN", -1),
            add("miles:tail:N804JB", 1576),
            Signal::Set { key: "last_seen:N804JB".into(), value },
        ]
    );
    assert_eq!((flight.line, flight.region(3)), (2, 1));
}

#[test]
fn what_is_not_known_adds_nothing() {
    let flights =
        read("h,1,LGA,IAH,UA,1,,NA,NA,1416\nh,1,LGA,IAH,UA,1,NA,,,1416\nh,1,LGA,IAH,UA,1,,0,,1416\n");
    let two = [add("departures:IAH", 1), add("departures:carrier:UA", 1)];
    let signals: Vec<_> = flights.into_iter().map(|flight| flight.unwrap().signals()).collect();
    assert_eq!(signals[0], two);
    assert_eq!(signals[1], two);
    assert_eq!(signals[2], [&two[..], &[add("delay_minutes:IAH", 0)]].concat());
}

#[test]
fn the_embedded_month_is_whole() {
    let flights: Vec<_> = Flights::january().unwrap().map(Result::unwrap).collect();
    assert_eq!(flights.len(), 26_865);
    let by_region = |at| flights.iter().filter(|flight| flight.region(3) == at).count();
    assert_eq!([by_region(0), by_region(1), by_region(2)], [9_845, 9_108, 7_912]);
    assert_eq!(flights.last().unwrap().line, 26_866);
    assert_eq!(flights.iter().filter(|flight| flight.tailnum.is_none()).count(), 154);
    assert_eq!(flights.iter().filter(|flight| flight.dep_delay.is_none()).count(), 512);
}

#[test]
fn any_number_of_regions_gets_its_share() {
    let flights: Vec<_> = Flights::january().unwrap().map(Result::unwrap).collect();
    for regions_count in [1, 2, 3, 4, 5, 7] {
        let mut shares = vec![0; regions_count];
        flights.iter().for_each(|flight| shares[flight.region(regions_count)] += 1);
        assert!(shares.iter().all(|share| *share > 26_865 / regions_count / 2), "{shares:?}");
    }
}

#[test]
fn bad_rows_are_refused_with_their_line_and_the_next_is_read() {
    let rows = "h,1,LGA,IAH,UA,1,N1,2,2,1416\n\
                h,1,LGA,IAH,UA,1,N1,soon,2,1416\n\
                h,1,LGA,IAH,UA,1,N1,2\n\
                h,1,LGA,,UA,1,N1,2,2,1416\n\
                h,1,LGA,IAH,UA,1,N1,2,2,NA\n\
                h,1,LGA,IAH,UA,1,N1,2,2,1416\n";
    let found: Vec<_> = read(rows)
        .into_iter()
        .map(|flight| flight.map(|f| f.line).map_err(|error| error.to_string()))
        .collect();
    assert_eq!(
        found,
        [
            Ok(2),
            Err("line 3: `dep_delay` is `soon`, not a whole number".into()),
            Err("line 4: 8 fields where the header has 10".into()),
            Err("line 5: `dest` is empty".into()),
            Err("line 6: `distance` is `NA`, not a whole number".into()),
            Ok(7),
        ]
    );
}

#[test]
fn a_missing_column_is_named() {
    let error = Flights::read(io::Cursor::new("origin,dest\nJFK,BQN\n")).unwrap_err();
    assert_eq!(error.to_string(), "line 1: no column `carrier`");
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_line() {
    let bytes = [HEADER.as_bytes(), b"h,1,LGA,\xff,UA,1,N1,2,2,1416\n"].concat();
    let error = Flights::read(io::Cursor::new(bytes)).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "line 2: not UTF-8");
}

#[test]
fn an_endless_line_ends_the_reading() {
    let mut flights = Flights::read(HEADER.as_bytes().chain(io::repeat(b'x'))).map(Iterator::fuse);
    let error = match &mut flights {
        Ok(flights) => flights.next().unwrap().unwrap_err(),
        Err(_) => flights.unwrap_err(),
    };
    assert!(matches!(&error, FlightsError::Io(_)), "{error}");
    assert!(error.to_string().contains("longer than 4096 bytes"), "{error}");
}

#[test]
fn plain_and_compressed_files_read_alike() {
    let text = format!("{HEADER}h,1,LGA,IAH,UA,1,N1,2,2,1416\n");
    let mut plain = tempfile::NamedTempFile::new().unwrap();
    plain.write_all(text.as_bytes()).unwrap();
    let mut packed = tempfile::NamedTempFile::new().unwrap();
    packed.write_all(&zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    let read = |path: &Path| Flights::open(path).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(read(plain.path()).len(), 1);
    assert_eq!(read(plain.path()), read(packed.path()));
    assert!(matches!(Flights::open(Path::new("no/such/file")), Err(FlightsError::Io(_))));
}
