"""athenahealth's fields as the driver's paths name them; custom fields of a practice are not asked for yet."""

from __future__ import annotations

from crmbridge.core.records import Object

__all__ = ["FIELDS"]

FIELDS = {
    Object.CUSTOMER: """
firstname         text     r20  First name
lastname          text     r20  Last name
dob               date     r    Date of birth
sex               text     -    Sex, M or F
email             email    50   E-mail
mobilephone       phone    -    Mobile phone, North American
homephone         phone    -    Home phone, North American
workphone         phone    -    Work phone, North American
address1          text     100  Street
address2          text     100  Street, second line
city              text     30   City
state             text     20   State
zip               text     20   ZIP
departmentid      text     -    Department (the connection's unless given)
status            pick_list:active,inactive,prospective - Status; deleted is never written
registrationdate  date     o    Registered
""",
    Object.CASE: """
subject           text      -    Subject
internalnote      long_text 4000 Internal note, written once
priority          pick_list:1,2 - 1 high, 2 normal
documentsubclass  text      -    Routing class
documentsource    text      -    Who is calling
departmentid      text      -    Department
providerid        text      -    Provider
callbackname      text      -    Whom to call back
callbacknumber    text      -    Where to call back
status            text      o    Status
createddate       text      o    Created
""",
    Object.NOTE: """
actionnote        long_text r    Note on a case
""",
    Object.APPOINTMENT: """
startTime         datetime  r    Start; an open slot must begin then
endTime           datetime  -    End; chooses among slots of different length
appointmentstatus pick_list:o,f,x,2,3,4 - Open, future, cancelled, checked in, checked out, charge entered
departmentid      text      -    Department
providerid        text      -    Provider
reasonid          text      -    Patient appointment reason
title             text      -    A line of the booking note, not read back
notes             long_text -    A line of the booking note, not read back
reason            long_text -    A line of the booking note, not read back
patientid         text      o    Patient
""",
}
